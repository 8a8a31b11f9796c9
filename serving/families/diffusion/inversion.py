"""Latents: the noise from which a deterministic sampler makes a row, and back.

Song, Meng and Ermon 2021 (DDIM inversion), with Heun's second-order step both ways on one grid of
levels, since the first-order pair does not return to where it began. A latent is the state at the
noisiest level over its standard deviation: N(0, I) under a perfect model.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import torch

from serving.families import units
from serving.families.diffusion.denoiser import TABLE, DataRows, Denoiser, rows_of
from serving.families.diffusion.grid import levels_of
from serving.families.diffusion.paths import PATHS
from serving.families.diffusion.plan import Choices, Plan, plan_of
from serving.families.diffusion.process import Levels, Process
from serving.families.diffusion.samplers.heun import heun
from serving.families.diffusion.table import DenoiseRows
from serving.families.request import Array, Request
from serving.families.result import Decoded, Encoded, Interpolated, Reconstructed
from serving.families.rows import Loop, Program, Streamed, Tensors, Yield

FLOW_EDGE = 1e-2  # the lowest noisy level of a flow


def inversion_levels(process: Process, steps: int) -> Levels:
    """``steps`` noisy levels, descending; flows take s finer near the data."""
    if not process.is_flow:
        return levels_of(process, steps, "karras")[:-1]
    root = np.linspace(1.0, np.sqrt(FLOW_EDGE), steps)
    return process.at_flow(root**2)


def encoding_plan(process: Process, steps: int) -> Plan:
    """From the lowest level to the noisiest."""
    ascending = inversion_levels(process, steps)[np.arange(steps)[::-1]]
    return plan_of(process, heun(ascending, up=True), Choices())


def decoding_plan(process: Process, steps: int) -> Plan:
    """The same levels downwards, then x0."""
    return plan_of(process, heun(inversion_levels(process, steps).to_clean()), Choices())


def _steps(request: Request) -> int:
    return int(request.parameters["steps"])  # type: ignore[arg-type]


def _looped(
    plan: Plan,
    request: Request,
    start: torch.Tensor,
    conditions: dict[str, Array],
    streamed: Streamed | None = None,
) -> Generator[Yield, Tensors, torch.Tensor]:
    times = len(start) // request.rows
    payload = DenoiseRows(plan, request.seed, np.repeat(rows_of(request), times), conditions, None, start)
    steps = np.full(len(start), len(plan), np.int64)
    state = yield Loop(TABLE, len(start), payload, steps, streamed)
    return state["x"]


def encoded(
    denoiser: Denoiser, request: Request, data: Array, conditions: dict[str, Array]
) -> Generator[Yield, Tensors, torch.Tensor]:
    """Latents [rows, *shape] of data rows."""
    levels = inversion_levels(denoiser.process, _steps(request))
    start = denoiser.to_model(data) * float(levels.alpha[-1])
    plan = encoding_plan(denoiser.process, _steps(request))
    x = yield from _looped(plan, request, start, conditions)
    return x / denoiser.process.initial_sd


def decoded(
    denoiser: Denoiser,
    request: Request,
    latents: torch.Tensor,
    conditions: dict[str, Array],
    streamed: Streamed | None = None,
) -> Generator[Yield, Tensors, Array]:
    """Data rows of latents [rows, *shape]."""
    plan = decoding_plan(denoiser.process, _steps(request))
    start = latents * denoiser.process.initial_sd
    x = yield from _looped(plan, request, start, conditions, streamed)
    return denoiser.to_data(x)


def encode(denoiser: Denoiser, request: Request) -> Program:
    """Latents; with ``round_trip`` also the error of decoding them again, in data units."""
    assert request.data is not None
    conditions = denoiser.conditions(request)
    latents = yield from encoded(denoiser, request, request.data, conditions)
    error = None
    if request.parameters.get("round_trip", False):
        back = yield from decoded(denoiser, request, latents, conditions)
        error = units.rms_difference(back, request.data)
    return Encoded(latents.numpy().astype(np.float32), error, dict(request.parameters))


def decode(denoiser: Denoiser, request: Request) -> Program:
    """Data of latents."""
    assert request.latents is not None
    latents = torch.from_numpy(np.ascontiguousarray(request.latents, np.float32))
    rows = DataRows(denoiser)
    data = yield from decoded(denoiser, request, latents, denoiser.conditions(request), rows)
    return Decoded(data, parameters=dict(request.parameters))


def reconstruct(denoiser: Denoiser, request: Request) -> Program:
    """Encode, then decode."""
    assert request.data is not None
    conditions = denoiser.conditions(request)
    latents = yield from encoded(denoiser, request, request.data, conditions)
    data = yield from decoded(denoiser, request, latents, conditions)
    return Reconstructed(data, units.rms_difference(data, request.data), parameters=dict(request.parameters))


def interpolate(denoiser: Denoiser, request: Request) -> Program:
    """Points between the latents of both ends, decoded; the ends are reconstructions."""
    assert request.data is not None
    assert request.end is not None
    points = int(request.parameters["points"])  # type: ignore[arg-type]
    pairs = np.stack([request.data, request.end], axis=1).reshape(-1, *denoiser.shape)
    ends = yield from encoded(denoiser, request, pairs, denoiser.conditions(request, 2))
    ends = ends.reshape(request.rows, 2, -1)
    between = PATHS[request.method](ends[:, 0], ends[:, 1], points)
    latents = between.reshape(-1, *denoiser.shape)
    data = yield from decoded(denoiser, request, latents, denoiser.conditions(request, points))
    shape = (request.rows, points, *denoiser.shape)
    return Interpolated(data.reshape(shape), request.method, parameters=dict(request.parameters))
