"""Latent diffusion (Rombach et al. 2022): the process runs in the latents of an autoencoder.

Every program of the family runs as it is, on latents in the place of data; around it rows are encoded, and
what comes out is decoded. An autoencoder does not return exactly to where it began, so what touches given
pixels is approximate.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace

import numpy as np
import torch

from export.package.schema import DataSpace
from serving.errors import invalid
from serving.families import units
from serving.families.diffusion.asking import LARGEST_CALL
from serving.families.diffusion.moments import maps
from serving.families.request import Array, Operation, Request
from serving.families.result import (
    Completed,
    Decoded,
    Encoded,
    Interpolated,
    Reconstructed,
    Result,
    Sampled,
)
from serving.families.rows import Call, Loop, Program, Tensors, Yield

DIRECT = "autoencoder"  # the method that leaves the process out
ENCODER, DECODER = "encoder", "decoder"
Inner = Callable[[Request], Program]
Steps = Generator[Yield, Tensors, Array]


class Latents:
    """The autoencoder around the programs of one package."""

    def __init__(self, pixels: DataSpace, latents: DataSpace) -> None:
        self._pixels, self._latents = pixels, latents

    def program(self, request: Request, inner: Inner) -> Program:
        """The program of a request about pixels; ``inner`` makes that of one about latents."""
        match request.operation:
            case Operation.SAMPLE:
                return self._sample(request, inner)
            case Operation.INPAINT:
                return self._complete(request, inner)
            case Operation.ENCODE:
                return self._encode(request, inner)
            case Operation.DECODE:
                return self._decode(request, inner)
            case Operation.RECONSTRUCT:
                return self._reconstruct(request, inner)
            case Operation.INTERPOLATE:
                return self._interpolate(request, inner)
        return self._scored(request, inner)

    # -- the autoencoder -----------------------------------------------------------------------------

    def encoded(self, data: Array, observed: Array | None = None) -> Steps:
        """Latents [rows, *latent] float32 of pixels; what is not observed is 0 in model coordinates."""
        x = units.to_model(self._pixels, data)
        if observed is not None:
            x = x * torch.from_numpy(observed)
        parts = []
        for first in range(0, len(x), self._rows_of_a_call()):
            answer = yield Call(ENCODER, {"x": x[first : first + self._rows_of_a_call()]})
            parts.append(answer["latent"].float().cpu().numpy().copy())
        return np.concatenate(parts)

    def decoded(self, latents: Array) -> Steps:
        """Pixels [rows, *shape] in the data space."""
        z = torch.from_numpy(np.ascontiguousarray(latents, np.float32))
        parts = []
        for first in range(0, len(z), self._rows_of_a_call()):
            answer = yield Call(DECODER, {"latent": z[first : first + self._rows_of_a_call()]})
            parts.append(units.to_data(self._pixels, answer["x"]))
        return np.concatenate(parts)

    def _rows_of_a_call(self) -> int:
        return max(1, LARGEST_CALL // self._pixels.elements)

    def cell(self) -> tuple[int, ...]:
        """Pixels of a latent along each axis but the channels."""
        sizes = zip(self._pixels.shape[1:], self._latents.shape[1:], strict=True)
        return tuple(pixels // latents for pixels, latents in sizes)

    def known(self, observed: Array) -> Array:
        """Latents [rows, *latent] whose pixels are given, all of them."""
        high, wide = self.cell()
        channels, height, width = self._latents.shape
        cells = observed.reshape(len(observed), -1, height, high, width, wide)
        whole = np.logical_and.reduce(cells, axis=(1, 3, 5), keepdims=True).reshape(-1, 1, height, width)
        return np.repeat(whole, channels, axis=1)

    # -- operations ----------------------------------------------------------------------------------

    def _sample(self, request: Request, inner: Inner) -> Program:
        found = yield from unseen(inner(request))
        assert isinstance(found, Sampled)
        data = yield from self.decoded(found.data)
        return replace(found, data=data)

    def _complete(self, request: Request, inner: Inner) -> Program:
        assert request.data is not None
        assert request.observed is not None
        observed = self.known(request.observed)
        self._check_seen(request.observed, observed)
        latents = yield from self.encoded(request.data, request.observed)
        plain = {
            name: value for name, value in request.parameters.items() if name not in ("moments", "entropy")
        }
        asked = replace(request, data=latents, observed=observed.astype(np.bool_), parameters=plain)
        found = yield from unseen(inner(asked))
        assert isinstance(found, Completed)
        flat = yield from self.decoded(found.data.reshape(-1, *self._latents.shape))
        drawn = flat.reshape(request.rows, request.completions, *self._pixels.shape)
        data = np.where(request.observed[:, None], request.data[:, None].astype(drawn.dtype), drawn)
        seen = maps(request, data)
        return replace(found, data=data, mean=seen.mean, variance=seen.variance, entropy=seen.entropy,
                       parameters=dict(request.parameters))  # fmt: skip

    def _check_seen(self, pixels: Array, latents: Array) -> None:
        """Given pixels that no latent would hear of are not ignored silently."""
        for row, (given, kept) in enumerate(zip(pixels, latents, strict=True)):
            if given.any() and not kept.any():
                cell = " x ".join(map(str, self.cell()))
                raise invalid(
                    "observed",
                    f"row {row} has no cell of {cell} pixels that is wholly given, and the model completes "
                    "in latents, one per cell",
                )

    def _encode(self, request: Request, inner: Inner) -> Program:
        assert request.data is not None
        latents = yield from self.encoded(request.data)
        if request.method != DIRECT:
            found = yield from unseen(inner(_without(replace(request, data=latents), "round_trip")))
            assert isinstance(found, Encoded)
            return replace(found, parameters=dict(request.parameters))
        error = None
        if request.parameters.get("round_trip", False):
            back = yield from self.decoded(latents)
            error = units.rms_difference(back, request.data)
        return Encoded(latents.astype(np.float32), error, dict(request.parameters))

    def _decode(self, request: Request, inner: Inner) -> Program:
        assert request.latents is not None
        latents: Array = request.latents
        if request.method != DIRECT:
            found = yield from unseen(inner(request))
            assert isinstance(found, Decoded)
            latents = found.data
        data = yield from self.decoded(latents)
        return Decoded(data, parameters=dict(request.parameters))

    def _reconstruct(self, request: Request, inner: Inner) -> Program:
        assert request.data is not None
        latents = yield from self.encoded(request.data)
        if request.method != DIRECT:
            found = yield from unseen(inner(replace(request, data=latents)))
            assert isinstance(found, Reconstructed)
            latents = found.data
        data = yield from self.decoded(latents)
        error = units.rms_difference(data, request.data)
        return Reconstructed(data, error, parameters=dict(request.parameters))

    def _interpolate(self, request: Request, inner: Inner) -> Program:
        assert request.data is not None
        assert request.end is not None
        ends = yield from self.encoded(np.concatenate([request.data, request.end]))
        start, end = ends[: request.rows], ends[request.rows :]
        found = yield from unseen(inner(replace(request, data=start, end=end)))
        assert isinstance(found, Interpolated)
        flat = yield from self.decoded(found.data.reshape(-1, *self._latents.shape))
        return replace(found, data=flat.reshape(*found.data.shape[:2], *self._pixels.shape))

    def _scored(self, request: Request, inner: Inner) -> Program:
        assert request.data is not None
        latents = yield from self.encoded(request.data)
        return (yield from unseen(inner(replace(request, data=latents))))

    # -- cost ----------------------------------------------------------------------------------------

    def network_rows(self, request: Request) -> dict[str, int]:
        """Rows of the autoencoder."""
        rows = request.rows
        points = int(request.parameters.get("points", 1))  # type: ignore[arg-type]
        taken = {
            Operation.SAMPLE: (0, rows),
            Operation.INPAINT: (rows, rows * request.completions),
            Operation.ENCODE: (rows, rows if request.parameters.get("round_trip") else 0),
            Operation.DECODE: (0, rows),
            Operation.INTERPOLATE: (2 * rows, rows * points),
            Operation.SCORE_ANOMALY: (rows, 0),
        }
        pairs = zip((ENCODER, DECODER), taken.get(request.operation, (rows, rows)), strict=True)
        return {name: count for name, count in pairs if count}


def _without(request: Request, name: str) -> Request:
    return replace(request, parameters={k: v for k, v in request.parameters.items() if k != name})


def unseen(program: Program) -> Generator[Yield, Tensors, Result]:
    """The same program, whose rows in the loop nobody sees: they are latents, not data."""
    try:
        work = next(program)
        while True:
            answer = yield replace(work, streamed=None) if isinstance(work, Loop) else work
            work = program.send(answer)
    except StopIteration as stop:
        result: Result = stop.value
        return result
    finally:
        program.close()
