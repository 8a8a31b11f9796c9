"""sample_tokens on CPU: only candidates are sorted, and noise is drawn for the kept tokens alone."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from kernels._candidates import Candidates, Floats, Integers, largest
from kernels._elementary import log
from kernels._rowwise import masses
from kernels.philox import STREAM_TOKEN, STREAMS_PER_PARTICLE, philox_uniform, philox_uniform_at

SMALLEST_TEMPERATURE: Final = 1e-30
SMALLEST_TAIL: Final = 2.3283064365386963e-10  # 2**-32: the Gumbel maximum of one draw is 22.2
_FIRST_NUCLEUS: Final = 1024
_CACHED: Final = 65_536


@dataclass(frozen=True)
class _Rows:
    """What the draw of each row depends on; each array is [rows]."""

    logits: Floats  # [rows, V]
    maximum: Floats
    inverse_temperature: Floats
    top_k: Integers
    top_p: npt.NDArray[np.float64]
    min_p: Floats
    seed: Integers
    row: Integers
    position: Integers
    stream: Integers

    def take(self, index: Integers) -> _Rows:
        if len(index) == len(
            self.logits
        ):  # the common case, and a copy of the logits costs more than the draw
            return self
        return _Rows(*(getattr(self, field.name)[index] for field in fields(self)))

    def counters(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Seed, row, line and stream word, int64 [rows] each."""
        seed, row, line, stream = map(
            torch.from_numpy, map(np.ascontiguousarray, (self.seed, self.row, self.position, self.stream))
        )
        return seed, row, line, stream

    def scores(self, values: Floats) -> Floats:
        """Scaled logits of ``values`` [rows, any], 0 at the maximum."""
        return (values - self.maximum[:, None]) * self.inverse_temperature[:, None]


@np.errstate(all="ignore")
def reference(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
    seed: torch.Tensor,
    row: torch.Tensor,
    position: torch.Tensor,
    particle: torch.Tensor | None = None,
    log_mass: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """:func:`kernels.token_sampling.sample_tokens` on CPU."""
    values = np.ascontiguousarray(logits.detach().float().numpy())
    heat, particles = temperature.float().numpy(), torch.zeros_like(seed) if particle is None else particle
    rows = _Rows(
        values,
        values.max(axis=1) if values.size else np.zeros(len(values), np.float32),
        np.float32(1) / np.maximum(heat, np.float32(SMALLEST_TEMPERATURE)),
        np.where((top_k.numpy() <= 0) | (top_k.numpy() > values.shape[1]), values.shape[1], top_k.numpy()),
        np.where(top_p.numpy() < 1, top_p.double().numpy(), 2.0),
        min_p.float().numpy(),
        seed.numpy(),
        row.numpy(),
        position.numpy(),
        STREAM_TOKEN + STREAMS_PER_PARTICLE * particles.numpy(),
    )
    token = np.empty(len(values), np.int64)
    processed = np.zeros(len(values), np.float32)
    limited = (rows.top_k < values.shape[1]) | (rows.top_p < 1)
    for chosen, draw in (
        (heat == 0, _greedy),
        ((heat != 0) & limited, _limited),
        ((heat != 0) & ~limited, _full),
    ):
        index = np.flatnonzero(chosen)
        if len(index):
            token[index], processed[index] = draw(rows.take(index))
    raw = torch.from_numpy(_raw(rows, token, log_mass))
    return torch.from_numpy(token), raw, torch.from_numpy(processed)


def _raw(rows: _Rows, token: Integers, log_mass: torch.Tensor | None) -> Floats:
    """log softmax of the logits as given, at ``token``."""
    chosen: Floats = _pick(rows.logits, token)
    if log_mass is not None:
        known: Floats = log_mass.float().numpy()
        return chosen - known
    return chosen - rows.maximum - np.log(masses(rows.logits, rows.maximum, np.ones_like(rows.maximum)))


def _greedy(rows: _Rows) -> tuple[Integers, Floats]:
    return rows.logits.argmax(axis=1), np.zeros(len(rows.logits), np.float32)


def _full(rows: _Rows) -> tuple[Integers, Floats]:
    """Rows whose every token may be drawn, except by min-p; a few at a time, to stay in cache."""
    step = max(1, _CACHED // max(1, rows.logits.shape[1]))
    index = np.arange(len(rows.logits))
    drawn = [_full_chunk(rows.take(index[first : first + step])) for first in range(0, len(index), step)]
    tokens, processed = zip(*drawn, strict=True)
    return np.concatenate(tokens), np.concatenate(processed)


def _full_chunk(rows: _Rows) -> tuple[Integers, Floats]:
    scores = rows.scores(rows.logits)
    weights = np.exp(scores)
    weights[weights < rows.min_p[:, None]] = 0
    draws = philox_uniform(*rows.counters(), rows.logits.shape[1]).numpy()
    noisy = np.where(weights > 0, scores - _log_exponential(draws), -np.inf)
    token = noisy.argmax(axis=1)
    mass = np.array([line.sum() for line in weights], np.float32)
    return token, _pick(scores, token) - np.log(mass)


def _limited(rows: _Rows) -> tuple[Integers, Floats]:
    """Rows that top-k or top-p confines to a few tokens."""
    token, processed, enough = _among_largest(rows, _FIRST_NUCLEUS)
    for index in np.flatnonzero(~enough).reshape(-1, 1):
        one, nucleus = rows.take(index), _FIRST_NUCLEUS
        while not enough[index].all():
            nucleus *= 8
            token[index], processed[index], enough[index] = _among_largest(one, nucleus)
    return token, processed


def _among_largest(rows: _Rows, nucleus: int) -> tuple[Integers, Floats, npt.NDArray[np.bool_]]:
    """Draw among the largest logits; the third array is false where a nucleus needs more of them."""
    size = rows.logits.shape[1]
    count = int(np.where(rows.top_k < size, rows.top_k, min(nucleus, size)).max())
    candidates = largest(rows.logits, count)
    lowest, mass, enough = _threshold(rows, candidates)
    return *_draw(rows, candidates, lowest, mass), enough


def _threshold(rows: _Rows, candidates: Candidates) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Return the lowest logit kept, the mass kept, and whether the candidates were enough, each [rows].

    Masses are cumulative sums from the largest down: a sequential sum of a prefix does not depend on how
    many candidates follow.
    """
    size = rows.logits.shape[1]
    ordered = np.ascontiguousarray(np.sort(candidates.value, axis=1)[:, ::-1])
    weights = np.exp(rows.scores(ordered))
    top_k = rows.top_k < size
    last = np.minimum(rows.top_k, ordered.shape[1]) - 1
    kth = np.where(top_k, _pick(ordered, last), -np.inf)
    kept = (ordered >= kth[:, None]) & (ordered > -np.inf)
    cumulative = np.cumsum(np.where(kept, weights, 0), axis=1, dtype=np.float64)
    total = cumulative[:, -1]
    if not top_k.all():
        total = np.where(top_k, total, masses(rows.logits, rows.maximum, rows.inverse_temperature))
    before = cumulative - np.where(kept, weights, 0)
    inside = before < (rows.top_p * total)[:, None]
    inside[:, 0] = True
    nucleus = _pick(ordered, inside.sum(axis=1) - 1)
    kept &= (ordered >= nucleus[:, None]) & (weights >= rows.min_p[:, None])
    kept[:, 0] = True
    end = kept.sum(axis=1) - 1
    enough = top_k | (cumulative[:, -1] >= rows.top_p * total) | (ordered.shape[1] == size)
    return _pick(ordered, end), _pick(cumulative, end).astype(np.float32), enough


def _draw(rows: _Rows, candidates: Candidates, lowest: Floats, mass: Floats) -> tuple[Integers, Floats]:
    """Draw among the candidates that reach ``lowest``."""
    kept = candidates.value >= lowest[:, None]
    line, column = np.nonzero(kept)
    elements = torch.from_numpy(candidates.id[line, column])
    seed, row, position, stream = (counter[line] for counter in rows.counters())
    draws = philox_uniform_at(seed, row, position, stream, rows.logits.shape[1], elements)
    scores = rows.scores(candidates.value)
    noisy = np.full(scores.shape, -np.inf, np.float32)
    noisy[line, column] = scores[line, column] - _log_exponential(draws.numpy())
    best = noisy.argmax(axis=1)
    return _pick(candidates.id, best), _pick(scores, best) - np.log(mass)


def _pick(values: npt.NDArray[Any], column: Integers) -> npt.NDArray[Any]:
    """One entry of each row."""
    return values[np.arange(len(values)), column]


def _log_exponential(uniform: Floats) -> Floats:
    """Return ln E with E = -ln(1 - u): the winning tail is at u -> 0, where float32 is fine-grained."""
    uniform = np.maximum(uniform, np.float32(SMALLEST_TAIL))
    survival = np.float32(1) - uniform
    coarse = np.minimum(survival, np.float32(1 - 2**-24))
    # Kahan's log1p: rounding in 1 - u cancels.
    exponential = np.where(survival == 1, uniform, -log(coarse) * (uniform / (np.float32(1) - coarse)))
    return log(exponential)
