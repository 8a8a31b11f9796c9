"""Samplers against those of diffusers, element by element, with the same network, start and noise."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from kernels.philox import STREAM_STEP, philox_normal
from serving.families.diffusion.denoiser import TABLE
from serving.families.diffusion.grid import levels_of
from serving.families.diffusion.plan import Choices, Lines, plan_of
from serving.families.diffusion.process import Levels, Process
from serving.families.diffusion.samplers.ancestral import ancestral
from serving.families.diffusion.samplers.first_order import ddim, euler, euler_ancestral
from serving.families.diffusion.samplers.heun import heun
from serving.families.diffusion.samplers.multistep import dpmpp_2m
from serving.families.diffusion.samplers.unified import unipc
from serving.families.diffusion.table import DenoiseRows
from serving.families.rows import Loop
from tests.analytic.diffusion.gaussian import diffusion, family_of, vectors

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

# NumPy on their tensors
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ROWS, ELEMENTS, STEPS, SEED, TRAINED = 3, 8, 20, 7, 1000
TOLERANCE = 1e-5


def network(x: torch.Tensor, alpha: float, sigma: float) -> torch.Tensor:
    """A noise prediction that is not affine in x, and whose x0 stays bounded."""
    return sigma * x / (0.3 * alpha**2 + sigma**2) + 0.3 * alpha * torch.sin(2.0 * x)


def noise(line: int, lines: int) -> torch.Tensor:
    """What the loop draws for a line; zero for the last one, where their DDPM of large variance adds some."""
    if line == lines - 1:
        return torch.zeros(ROWS, ELEMENTS)
    rows, ones = torch.arange(ROWS), torch.ones(ROWS, dtype=torch.int64)
    return philox_normal(SEED * ones, rows, line * ones, STREAM_STEP, ELEMENTS)


def start() -> torch.Tensor:
    """Where all begin."""
    return torch.from_numpy(np.random.default_rng(1).standard_normal((ROWS, ELEMENTS)).astype(np.float32))


def ours(kind: str, lines: Lines) -> np.ndarray:
    """The table's last state."""
    section = diffusion(kind)
    family = family_of(section, vectors(ELEMENTS))
    table: Any = family.tables({}, ROWS, torch.device("cpu"))[TABLE]
    plan = plan_of(Process(section), lines, Choices())
    slots = np.arange(ROWS)
    payload = DenoiseRows(plan, SEED, slots, start=start())
    table.admit(slots, Loop(TABLE, ROWS, payload, np.full(ROWS, len(plan))))
    for alpha, sigma in zip(lines.asked.alpha, lines.asked.sigma, strict=True):
        inputs = {"x": torch.empty(ROWS, ELEMENTS), "t": torch.empty(ROWS)}
        table.gather(slots, inputs)
        output = network(inputs["x"], alpha, sigma)
        table.advance(slots, {"prediction": output - _clean(inputs["x"], output, alpha, sigma, kind)})
    return np.asarray(table.result(slots)["x"].double().numpy())


def _clean(
    x: torch.Tensor, output: torch.Tensor, alpha: float, sigma: float, kind: str
) -> torch.Tensor | float:
    """A flow's network predicts noise - x0."""
    if kind != "flow":
        return 0.0
    return (x - sigma * output) / alpha if alpha > 0 else 0.5 * torch.tanh(x)


@dataclass(frozen=True)
class Case:
    """A sampler here and there. ``scaled``: theirs moves x / alpha."""

    lines: Callable[[Levels], Lines]
    scheduler: str
    options: dict[str, object]
    scaled: bool = False
    step: dict[str, float] | None = None


CASES = {
    "ddim": Case(ddim, "DDIMScheduler", {"clip_sample": False}),
    "ddim eta 1": Case(partial(ddim, eta=1.0), "DDIMScheduler", {"clip_sample": False}, step={"eta": 1.0}),
    "ddpm": Case(ancestral, "DDPMScheduler", {"clip_sample": False, "variance_type": "fixed_small"}),
    "ddpm_large": Case(
        partial(ancestral, large=True),
        "DDPMScheduler",
        {"clip_sample": False, "variance_type": "fixed_large"},
    ),
    "euler": Case(euler, "EulerDiscreteScheduler", {}, scaled=True),
    "euler_ancestral": Case(euler_ancestral, "EulerAncestralDiscreteScheduler", {}, scaled=True),
    "heun": Case(heun, "HeunDiscreteScheduler", {}, scaled=True),
    "dpmpp_2m": Case(dpmpp_2m, "DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "sde_dpmpp_2m": Case(
        partial(dpmpp_2m, stochastic=True),
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++"},
    ),
    "unipc": Case(unipc, "UniPCMultistepScheduler", {"solver_order": 2, "solver_type": "bh2"}),
}


def theirs(case: Case, lines: Lines, patch: pytest.MonkeyPatch) -> np.ndarray:
    """The scheduler's last sample, from float64 tables where it takes them."""
    betas = diffusion("vp").schedule.betas  # type: ignore[union-attr]
    made = getattr(diffusers, case.scheduler)(
        num_train_timesteps=TRAINED, trained_betas=list(betas), timestep_spacing="trailing", **case.options
    )
    made.alphas_cumprod = torch.from_numpy(np.cumprod(1.0 - np.asarray(betas)))
    made.set_timesteps(STEPS)
    asked = lines.asked
    scale = 1.0 / asked.alpha if case.scaled else np.ones(len(asked))
    x, calls = start().double() * scale[0], iter(range(len(asked)))
    for t in made.timesteps:
        line = next(calls)
        drawn = noise(line, len(asked))
        patch.setattr(
            sys.modules[type(made).__module__], "randn_tensor", lambda *_, z=drawn, **__: z, raising=False
        )
        output = network(x / scale[line], asked.alpha[line], asked.sigma[line])
        x = made.step(output, t, x, **(case.step or {})).prev_sample.double()
    assert next(calls, None) is None
    return np.asarray(x.numpy())


@pytest.mark.parametrize("name", CASES)
def test_a_sampler_moves_every_element_as_that_of_diffusers(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    lines = case.lines(levels_of(Process(diffusion("vp")), STEPS, "trailing"))
    np.testing.assert_allclose(ours("vp", lines), theirs(case, lines, monkeypatch), atol=TOLERANCE)


def test_euler_on_a_flow_moves_every_element_as_that_of_diffusers() -> None:
    made: Any = diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=TRAINED)
    made.set_timesteps(sigmas=np.linspace(1.0, 1.0 / STEPS, STEPS))
    lines = euler(levels_of(Process(diffusion("flow")), STEPS, "trailing"))
    x = start().double()
    for t, alpha, sigma in zip(made.timesteps, lines.asked.alpha, lines.asked.sigma, strict=True):
        output = network(x, alpha, sigma)
        x = made.step(output - _clean(x, output, alpha, sigma, "flow"), t, x).prev_sample.double()
    np.testing.assert_allclose(ours("flow", lines), x.numpy(), atol=TOLERANCE)
