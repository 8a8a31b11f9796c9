"""The checks of SelfTest: small requests whose answers are compared with each other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import numpy as np

from serving.api.ask import answer_of
from serving.api.ports import Engine
from serving.api.resolve.asked import Asked, Rows
from serving.api.resolve.request import Rules, resolve
from serving.api.rpc import Call
from serving.engine.messages import Options, Usage
from serving.families.request import Array, Operation
from serving.families.result import Completed, Decoded, Encoded, Reconstructed, Result, Sampled, Scored
from serving.repository.loader import LoadedModel

ROWS = 4
_NEIGHBOURS = 3
_UNLIMITED = 1 << 30


@dataclass(frozen=True)
class Finding:
    """What a check found; ``holds`` None: it does not apply."""

    holds: bool | None
    statistic: float
    detail: str


class Asker:
    """Asks one model with one seed, and adds up what that costs."""

    def __init__(self, engine: Engine, loaded: LoadedModel, seed: int, call: Call) -> None:
        self.loaded = loaded
        self.usage = Usage(0, 0.0, 0.0)
        self._engine = engine
        self._seed = seed
        self._call = call
        self._rules = Rules(loaded.spec, loaded.capabilities, loaded.latent, _UNLIMITED, max_reply_bytes=0)

    async def ask(self, asked: Asked, seed_offset: int = 0) -> Result:
        """The result at the model's defaults; FailedPrecondition where the operation is undefined."""
        seeded = replace(asked, seed=(self._seed + seed_offset) % 2**64)
        options = Options(request_id=self._call.request_id, deadline_s=self._call.deadline_s)
        request = resolve(seeded, self._rules)
        finished = await answer_of(self._engine, self.loaded.key, request, options)
        usage = finished.usage
        self.usage = Usage(
            self.usage.network_evaluations + usage.network_evaluations,
            self.usage.device_seconds + usage.device_seconds,
            self.usage.queue_seconds + usage.queue_seconds,
        )
        return finished.result

    async def rows(self, n: int, first_row: int = 0, seed_offset: int = 0) -> Rows:
        """Samples; of a model without any, reconstructions of noise."""
        if any(c.operation is Operation.SAMPLE and c.supported for c in self.loaded.capabilities):
            result = await self.ask(Asked(Operation.SAMPLE, n=n, first_row=first_row), seed_offset)
        else:
            noise = Rows(self._noise(first_row + n)[first_row:])
            result = await self.ask(
                Asked(Operation.RECONSTRUCT, data=noise, first_row=first_row), seed_offset
            )
        assert isinstance(result, Sampled | Reconstructed)
        return Rows(result.data, result.lengths)

    def _noise(self, rows: int) -> Array:
        space = self.loaded.spec.data
        generator = np.random.Generator(np.random.Philox(self._seed))
        shape = (rows, *(space.max_length if size == -1 else size for size in space.shape))
        if space.levels:
            return generator.integers(0, space.levels, shape).astype(space.dtype)
        return generator.standard_normal(shape).astype(space.dtype)


async def _same_seed(asker: Asker) -> Finding:
    return _compared(asker, await asker.rows(ROWS), await asker.rows(ROWS), "the same request, twice")


async def _prefix(asker: Asker) -> Finding:
    whole, part = await asker.rows(ROWS), await asker.rows(ROWS // 2)
    return _compared(asker, _slice(whole, 0, ROWS // 2), part, f"rows 0..{ROWS // 2 - 1} of n = {ROWS}")


async def _split(asker: Asker) -> Finding:
    whole, rest = await asker.rows(ROWS), await asker.rows(ROWS - 1, first_row=1)
    return _compared(asker, _slice(whole, 1, ROWS), rest, "rows from first_row = 1 on against the whole")


async def _batch_independence(asker: Asker) -> Finding:
    alone = await asker.rows(ROWS)
    together = await asyncio.gather(*(asker.rows(ROWS, seed_offset=k) for k in range(1 + _NEIGHBOURS)))
    return _compared(asker, alone, together[0], f"alone against beside {_NEIGHBOURS} other requests")


async def _given_entries(asker: Asker) -> Finding:
    rows = await asker.rows(2)
    observed = np.zeros(rows.data.shape, np.bool_)
    observed.reshape(len(observed), -1)[:, : observed[0].size // 2] = True
    result = await asker.ask(Asked(Operation.INPAINT, data=rows, observed=observed))
    assert isinstance(result, Completed)
    width = min(result.data[:, 0].shape[1], rows.data.shape[1])
    kept = observed[:, :width]
    wrong = (result.data[:, 0, :width] != rows.data[:, :width]) & kept
    return Finding(not wrong.any(), float(wrong.sum()), "observed entries that a completion changed")


async def _likelihood_finite(asker: Asker) -> Finding:
    result = await asker.ask(Asked(Operation.LIKELIHOOD, data=await asker.rows(ROWS)))
    assert isinstance(result, Scored)
    finite = bool(np.isfinite(result.log_prob).all())
    return Finding(finite, float(result.bits_per_dim.mean()), "bits per dimension of the model's own samples")


async def _round_trip(asker: Asker) -> Finding:
    rows = await asker.rows(ROWS)
    encoded = await asker.ask(Asked(Operation.ENCODE, data=rows))
    assert isinstance(encoded, Encoded)
    decoded = await asker.ask(Asked(Operation.DECODE, latents=encoded.latents))
    assert isinstance(decoded, Decoded)
    error = _rms(decoded.data, rows.data)
    apart = _rms(decoded.data, np.roll(decoded.data, 1, axis=0))
    return Finding(error < apart, error, f"rms of decode(encode(x)) - x; rows are {apart:.3g} apart")


def _compared(asker: Asker, one: Rows, other: Rows, what: str) -> Finding:
    """Bit for bit; where the package is only of class TOLERANCE, a difference proves nothing."""
    same = one.data.shape == other.data.shape and bool(np.array_equal(one.data, other.data))
    width = min(one.data.shape[1], other.data.shape[1])
    difference = float(np.abs(one.data[:, :width].astype(float) - other.data[:, :width]).max(initial=0.0))
    if not same and asker.loaded.determinism == "tolerance":
        return Finding(None, difference, f"{what}; this package is of class TOLERANCE on this device")
    return Finding(same, difference, f"{what}: largest difference of any entry")


def _slice(rows: Rows, start: int, stop: int) -> Rows:
    """Rows of a batch, padded no further than a batch of their own would be."""
    if rows.lengths is None:
        return Rows(rows.data[start:stop])
    lengths = rows.lengths[start:stop]
    return Rows(rows.data[start:stop, : int(lengths.max(initial=0))], lengths)


def _rms(one: Array, other: Array) -> float:
    return float(np.sqrt(np.mean(np.square(one.astype(np.float64) - other.astype(np.float64)))))


@dataclass(frozen=True)
class Check:
    """One check; ``for_any_weights``: a FAIL says that the server is wrong, not the model."""

    run: Callable[[Asker], Awaitable[Finding]]
    for_any_weights: bool


CHECKS: dict[str, Check] = {
    "same_seed": Check(_same_seed, True),
    "prefix": Check(_prefix, True),
    "split": Check(_split, True),
    "batch_independence": Check(_batch_independence, True),
    "given_entries": Check(_given_entries, True),
    "likelihood_finite": Check(_likelihood_finite, True),
    "round_trip": Check(_round_trip, False),
}
