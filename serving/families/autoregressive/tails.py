"""Unknown symbols after the last observed one: plain continuation, in the decoding table.

Their uniforms are those of the particle that is continued, so a completion does not depend on how many
others are asked for.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from kernels.philox import STREAM_TOKEN
from serving.families.autoregressive.decoding import Continuation
from serving.families.autoregressive.masks import Partial
from serving.families.autoregressive.noise import uniforms
from serving.families.autoregressive.sampling import run
from serving.families.autoregressive.symbols import Alphabet, Ids
from serving.families.request import Request
from serving.families.rows import Tensors, Yield


def continued(
    alphabet: Alphabet, request: Request, partial: Partial, symbols: Ids, number: Ids, limit: int | None
) -> Generator[Yield, Tensors, Ids]:
    """``symbols`` [rows, copies, length] continued to the end of each row; ``number`` [rows, copies]."""
    copies = symbols.shape[1]
    work = _work(request, partial, symbols.reshape(-1, symbols.shape[2]), number.reshape(-1), copies)
    state = yield from run(alphabet, work, limit=limit)
    return np.asarray(state["symbols"].numpy().reshape(symbols.shape), np.int64)


def _work(request: Request, partial: Partial, symbols: Ids, number: Ids, copies: int) -> Continuation:
    ends = (partial.row, partial.known_end, partial.counts, partial.sequences.begin)
    row, given, end, begin = (np.repeat(x, copies) for x in ends)
    place = np.arange(symbols.shape[1])
    which, position = np.nonzero((place >= given[:, None]) & (place < end[:, None]))
    table = np.full(symbols.shape, 0.5)
    table[which, position] = uniforms(request, row[which], position, STREAM_TOKEN, number[which])
    return Continuation(begin, symbols, given, end, row, uniforms=table)
