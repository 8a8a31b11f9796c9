"""One sampler here and one scheduler of diffusers along the same network, start and noise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.diffusers.scheduled import Scheduled
from export.diffusers.scheduler import scheduled
from export.package.schema import DataSpace, Diffusion
from kernels.philox import STREAM_STEP, philox_normal
from serving.families.diffusion.denoiser import TABLE
from serving.families.diffusion.family import DiffusionFamily
from serving.families.diffusion.sample import sample
from serving.families.diffusion.table import initial_noise
from serving.families.request import Operation, Request
from serving.families.rows import Loop
from tests.analytic.diffusion.gaussian import package

ROWS, SHAPE, SEED = 2, (1, 4, 4), 11
ELEMENTS = 16
Floats = NDArray[np.float64]
IMAGES = DataSpace(kind="image", axes=("channel", "height", "width"), shape=SHAPE, dtype="float32")


def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A prediction that depends on state and time without being affine, computed alike for both."""
    time = torch.tanh(t.double().reshape(-1, 1, 1, 1) / 300.0 + 0.1)
    wide = x.double()
    return (
        wide * (0.7 + 0.2 * time) / (1.0 + 0.05 * wide * wide) + 0.3 * torch.sin(2.0 * wide + time)
    ).float()


def section_of(found: Scheduled) -> Diffusion:
    """The section as the importer builds it for pixels."""
    section = dict(found.section)
    if found.bound is not None:
        section |= {"clip_range": [-found.bound, found.bound], "clip_default": True}
    return Diffusion.model_validate(section)


def ours(config: Mapping[str, Any], steps: int, sampler: str | None = None, eta: float = 0.0) -> Floats:
    """The last state of the package's loop."""
    section = section_of(scheduled(config))
    family = DiffusionFamily(package(section, IMAGES))
    request = Request(
        Operation.SAMPLE, sampler or str(section.default_sampler), {"steps": steps, "eta": eta}, SEED, 0, ROWS
    )
    if section.threshold_default is not None:
        request.parameters["dynamic_threshold"] = section.threshold_default  # type: ignore[index]
    loop = next(sample(family.denoiser, request))
    assert isinstance(loop, Loop)
    table: Any = family.tables({}, ROWS, torch.device("cpu"))[TABLE]
    slots = np.arange(ROWS)
    table.admit(slots, loop)
    for _ in range(int(loop.steps[0])):
        inputs = {"x": torch.empty(ROWS, *SHAPE), "t": torch.empty(ROWS)}
        table.gather(slots, inputs)
        table.advance(slots, {"prediction": network(inputs["x"], inputs["t"])})
    return np.asarray(table.result(slots)["x"].double().numpy())


def step_noise(line: int) -> torch.Tensor:
    """What our loop draws for a line."""
    rows, ones = torch.arange(ROWS), torch.ones(ROWS, dtype=torch.int64)
    return philox_normal(SEED * ones, rows, line * ones, STREAM_STEP, ELEMENTS).reshape(ROWS, *SHAPE)


@contextmanager
def drawing(scheduler: Any) -> Iterator[Callable[[torch.Tensor], None]]:
    """A scheduler that draws what the function was last given."""
    module = sys.modules[type(scheduler).__module__]
    before = getattr(module, "randn_tensor", None)

    def give(noise: torch.Tensor) -> None:
        module.randn_tensor = lambda *_, **__: noise  # type: ignore[attr-defined]

    try:
        yield give
    finally:
        module.randn_tensor = before  # type: ignore[attr-defined]


def theirs(config: Mapping[str, Any], steps: int, swapped: str = "", **step: float) -> Floats:
    """The scheduler's last sample; ``swapped``: of another class made from the same configuration."""
    import diffusers

    made = getattr(diffusers, str(config["_class_name"])).from_config(dict(config))
    if swapped:
        made = getattr(diffusers, swapped).from_config(made.config)
    made.set_timesteps(steps)
    x = initial_noise(SEED, np.arange(ROWS), None, ELEMENTS).reshape(ROWS, *SHAPE)
    x = x * float(getattr(made, "init_noise_sigma", 1.0))
    with drawing(made) as draw:
        for line, t in enumerate(made.timesteps):
            draw(step_noise(line))
            scaled = made.scale_model_input(x, t) if hasattr(made, "scale_model_input") else x
            output = network(scaled, torch.full((ROWS,), float(t)))
            x = made.step(output, t, x, **step).prev_sample
    return np.asarray(x.double().numpy())
