"""Sample: continue a prefix symbol by symbol, under the model's law or a modified one."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from serving.errors import invalid
from serving.families.autoregressive.decoding import STOPPED, Continuation, Sampling
from serving.families.autoregressive.stopping import patterns
from serving.families.autoregressive.symbols import Alphabet, Ids
from serving.families.request import Array, Request
from serving.families.result import FinishReason, Sampled, SampleKind
from serving.families.rows import Loop, Program, Tensors, Yield

TABLE = "decoding"


@dataclass(frozen=True)
class SymbolsSoFar:
    """How rows of a decoding loop look to the caller: data, padded with zeros after their end."""

    alphabet: Alphabet

    def data(self, rows: NDArray[np.int64], state: Tensors) -> tuple[Array, NDArray[np.int32] | None]:
        """Rows of the table's state; lengths where they vary."""
        return answer(self.alphabet, state)


def sample(alphabet: Alphabet, request: Request, limit: int | None) -> Program:
    """Draw ``rows`` rows; a prompt is kept as their beginning."""
    work = continuation(alphabet, request)
    state = yield from run(alphabet, work, SymbolsSoFar(alphabet), limit)
    data, lengths = answer(alphabet, state)
    return Sampled(
        data,
        kind(work.sampling, alphabet),
        lengths,
        log_prob=state["log_prob"].numpy(),
        sampling_log_prob=state["sampling_log_prob"].numpy(),
        finish_reasons=_reasons(state) if alphabet.variable else (),
        parameters=dict(request.parameters),
    )


def run(
    alphabet: Alphabet, work: Continuation, streamed: SymbolsSoFar | None = None, limit: int | None = None
) -> Generator[Yield, Tensors, Tensors]:
    """The final state of rows, by the decoding table; ``limit`` rows at a time (the table's capacity).

    Rows stream only where one loop holds them all, since its row numbers are the request's.
    """
    parts = []
    unfinished = np.flatnonzero(work.steps > 0)
    size = limit or max(1, len(unfinished))
    whole = len(unfinished) == len(work.begin) <= size
    for start in range(0, len(unfinished), size):
        index = unfinished[start : start + size]
        part = work.take(index)
        state = yield Loop(TABLE, len(index), part, part.steps, streamed if whole else None)
        parts.append((index, state))
    return _merged(work, parts)


def _merged(work: Continuation, parts: list[tuple[Ids, Tensors]]) -> Tensors:
    """States of all rows; those that had nothing to do are as given."""
    rows = len(work.begin)
    whole: dict[str, NDArray[np.generic]] = {
        "symbols": work.symbols.copy(),
        "lengths": work.given.copy(),
        "reason": np.zeros(rows, np.int64),
        "log_prob": np.zeros(rows, np.float64),
        "sampling_log_prob": np.zeros(rows, np.float64),
    }
    for index, state in parts:
        for name, value in state.items():
            whole[name][index] = value.numpy()
    return {name: torch.from_numpy(value) for name, value in whole.items()}


def continuation(alphabet: Alphabet, request: Request) -> Continuation:
    """The rows of a request: prefix from the prompt, end from ``max_new_tokens`` or the data's length."""
    given, symbols = prompt(alphabet, request)
    end = np.full(request.rows, alphabet.length, np.int64)
    newest = request.parameters.get("max_new_tokens")
    if alphabet.variable and isinstance(newest, int):
        end = np.minimum(end, given + newest)
    row = request.first_row + np.arange(request.rows, dtype=np.int64)
    begin = alphabet.begin(request)
    return Continuation(begin, symbols, given, end, row, request.seed, settings(request))


def prompt(alphabet: Alphabet, request: Request) -> tuple[Ids, Ids]:
    """Length [rows] and symbols [rows, length] of each row's prefix."""
    if request.data is None:
        return np.zeros(request.rows, np.int64), np.zeros((request.rows, alphabet.length), np.int64)
    symbols = alphabet.flat(request.data)
    width = symbols.shape[1]
    if width > alphabet.length:
        raise invalid("prompt", f"at most {alphabet.length} symbols")
    given = alphabet.counts(request.rows, width, request.lengths)
    if request.observed is not None:
        given = np.minimum(given, _prefix(request.observed))
    whole = alphabet.padded(symbols)
    whole[np.arange(alphabet.length) >= given[:, None]] = 0
    return given, whole


def _prefix(observed: NDArray[np.bool_]) -> Ids:
    """Given symbols of each row, which must come first."""
    flags = observed.reshape(len(observed), -1)
    count = flags.sum(axis=1)
    if (flags != (np.arange(flags.shape[1]) < count[:, None])).any():
        raise invalid("observed", "a prompt is a prefix in data order; use Inpaint for other masks")
    return np.asarray(count, np.int64)


def settings(request: Request) -> Sampling:
    """Sampling settings of a request."""
    values = request.parameters
    stop = values.get("stop", ())
    names = tuple(stop) if isinstance(stop, tuple | list) else ()
    return Sampling(
        temperature=_number(values.get("temperature"), 1.0),
        top_k=int(_number(values.get("top_k"), 0)),
        top_p=_number(values.get("top_p"), 1.0),
        min_p=_number(values.get("min_p"), 0.0),
        stop=patterns(names) if names else None,
    )


def _number(value: object, default: float) -> float:
    return float(value) if isinstance(value, int | float) else default


def kind(sampling: Sampling, alphabet: Alphabet) -> SampleKind:
    """EXACT where nothing changes the model's law."""
    whole = sampling.top_k in (0, alphabet.size) or sampling.top_k > alphabet.size
    plain = sampling.temperature == 1.0 and sampling.top_p >= 1.0 and sampling.min_p <= 0.0
    return SampleKind.EXACT if whole and plain else SampleKind.MODIFIED


def answer(alphabet: Alphabet, state: Tensors) -> tuple[Array, NDArray[np.int32] | None]:
    """Data [rows, *shape], and lengths [rows] where they vary (zeros beyond them)."""
    symbols = state["symbols"].numpy()
    if not alphabet.variable:
        return alphabet.shaped(symbols), None
    lengths = state["lengths"].numpy().astype(np.int32)
    width = int(lengths.max(initial=0))
    kept = np.where(np.arange(width) < lengths[:, None], symbols[:, :width], 0)
    return alphabet.shaped(kept), lengths


def _reasons(state: Tensors) -> tuple[FinishReason, ...]:
    stopped = state["reason"].numpy() == STOPPED
    return tuple(FinishReason.STOP if row else FinishReason.LENGTH for row in stopped)
