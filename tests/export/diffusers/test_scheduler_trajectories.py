"""Packages sample along the trajectories of the scheduler that they were read from, noise for noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from export.diffusers.scheduler import scheduled
from serving.families.diffusion.process import Process
from serving.families.diffusion.samplers.registry import SAMPLERS
from serving.families.diffusion.visits import visits_of
from tests.export.diffusers.trajectories import drawing, ours, section_of, step_noise, theirs

# NumPy on their tensors
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# Both sides round in float32: 20 to 50 steps of relative error 6e-8 each, and their tables once more.
TOLERANCE = 1e-4  # of the largest entry, at least 1

SPACINGS = ("leading", "trailing", "linspace")
SOLVER = "DPMSolverMultistepScheduler"
SINGLE, UNIFIED = "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler"


def case(name: str, steps: int = 20, **config: Any) -> Any:
    """One configuration, named after what it sets."""
    shown = "-".join(f"{key}={value}" for key, value in config.items() if key != "trained_betas")
    return pytest.param({"_class_name": name, **config}, steps, id=f"{name}-{steps}-{shown}")


CASES = [
    *(
        case("DDIMScheduler", steps, timestep_spacing=spacing, clip_sample=clip, steps_offset=offset)
        for spacing, steps, clip, offset in (
            ("leading", 50, True, 0), ("leading", 50, False, 1), ("leading", 7, True, 1),
            ("trailing", 50, True, 0), ("trailing", 30, False, 0), ("linspace", 30, True, 0),
        )
    ),
    case("DDIMScheduler", beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012,
         steps_offset=1, set_alpha_to_one=False, clip_sample=False),
    case("DDIMScheduler", prediction_type="v_prediction", rescale_betas_zero_snr=True,
         timestep_spacing="trailing", clip_sample=False),
    case("DDIMScheduler", prediction_type="sample", clip_sample_range=0.5),
    case("DDIMScheduler", prediction_type="v_prediction", clip_sample_range=2.0),
    case("DDIMScheduler", thresholding=True, sample_max_value=1.5, dynamic_thresholding_ratio=0.9),
    case("DDIMScheduler", thresholding=True),
    case("DDIMScheduler", 10, num_train_timesteps=100, trained_betas=list(np.linspace(1e-3, 0.05, 100))),
    case("DDPMScheduler", 25),
    case("DDPMScheduler", 25, variance_type="fixed_large"),
    case("DDPMScheduler", 30, timestep_spacing="linspace", beta_schedule="squaredcos_cap_v2"),
    *(case("EulerDiscreteScheduler", timestep_spacing=spacing, steps_offset=1) for spacing in SPACINGS),
    case("EulerDiscreteScheduler", use_karras_sigmas=True, final_sigmas_type="sigma_min"),
    case("EulerDiscreteScheduler", use_exponential_sigmas=True, timestep_spacing="leading"),
    case("EulerDiscreteScheduler", 12, prediction_type="v_prediction", timestep_type="continuous",
         use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0),
    case("EulerDiscreteScheduler", 12, prediction_type="v_prediction", rescale_betas_zero_snr=True,
         timestep_spacing="trailing"),
    case("EulerAncestralDiscreteScheduler", timestep_spacing="trailing"),
    case("HeunDiscreteScheduler", 12, use_karras_sigmas=True, clip_sample=True),
    *(case(SOLVER, timestep_spacing=spacing, steps_offset=1) for spacing in SPACINGS),
    *(case(SOLVER, steps, solver_order=order) for steps, order in ((20, 1), (20, 3), (8, 3))),
    case(SOLVER, use_karras_sigmas=True),
    case(SOLVER, 8, use_karras_sigmas=True, solver_order=3),
    case(SOLVER, use_lu_lambdas=True),
    case(SOLVER, use_exponential_sigmas=True, solver_type="heun"),
    case(SOLVER, euler_at_final=True, final_sigmas_type="sigma_min"),
    case(SOLVER, beta_schedule="squaredcos_cap_v2", lambda_min_clipped=-5.1),
    case(SOLVER, algorithm_type="sde-dpmsolver++", use_karras_sigmas=True),
    case(SOLVER, algorithm_type="sde-dpmsolver++", solver_type="heun"),
    case(SOLVER, use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0),
    case(SOLVER, thresholding=True, sample_max_value=2.0),
    *(case(SINGLE, steps, solver_order=order) for steps, order in ((20, 1), (21, 2), (8, 2))),
    case(SINGLE, final_sigmas_type="sigma_min", lower_order_final=False),
    case(UNIFIED),
    case(UNIFIED, solver_order=3, use_karras_sigmas=True),
    case(UNIFIED, solver_type="bh1", final_sigmas_type="sigma_min", lower_order_final=False),
    case(UNIFIED, use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0),
    case("FlowMatchEulerDiscreteScheduler", shift=3.0),
    case("FlowMatchEulerDiscreteScheduler", use_karras_sigmas=True, shift_terminal=0.1),
    case("FlowMatchHeunDiscreteScheduler", shift=3.0),
    case("EDMEulerScheduler"),
    case("EDMEulerScheduler", sigma_schedule="exponential", prediction_type="v_prediction"),
    case("EDMDPMSolverMultistepScheduler", solver_order=3, rho=5.0),
]  # fmt: skip


def _agree(actual: np.ndarray, wanted: np.ndarray) -> None:
    assert np.isfinite(wanted).all()
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=TOLERANCE * max(1.0, np.abs(wanted).max()))


@pytest.mark.parametrize(("config", "steps"), CASES)
def test_a_package_follows_its_scheduler(config: dict[str, Any], steps: int) -> None:
    _agree(ours(config, steps), theirs(config, steps))


def test_eta_adds_the_noise_that_the_scheduler_adds() -> None:
    config = {"_class_name": "DDIMScheduler"}
    _agree(ours(config, 20, eta=0.5), theirs(config, 20, eta=0.5))


@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    [
        ("ddim", "DDIMScheduler"),
        ("dpmpp_2m", SOLVER),
        ("euler", "EulerDiscreteScheduler"),
        ("heun", "HeunDiscreteScheduler"),
        ("unipc", UNIFIED),
    ],
)
@pytest.mark.parametrize(
    "stated", [{}, {"timestep_spacing": "leading", "steps_offset": 1}], ids=["old", "new"]
)
def test_other_samplers_read_the_configuration_as_other_schedulers_do(
    sampler: str, scheduler: str, stated: dict[str, Any]
) -> None:
    config = {"_class_name": "DDPMScheduler", "beta_start": 1e-4, "beta_end": 0.02, "clip_sample": False}
    _agree(ours(config | stated, 50, sampler), theirs(config | stated, 50, scheduler))


def test_reverse_diffusion_takes_the_predictor_s_steps_of_a_score_sde() -> None:
    import diffusers

    config: dict[str, Any] = {"_class_name": "ScoreSdeVeScheduler", "sigma_max": 50.0, "correct_steps": 0}
    made: Any = getattr(diffusers, str(config["_class_name"])).from_config(config)
    made.set_timesteps(30)
    made.set_sigmas(30)
    process = Process(section_of(scheduled(config)))
    sampler = SAMPLERS["reverse_diffusion"]
    visits = visits_of(process, 30, sampler.spacing, sampler.counting)
    lines = sampler.lines_of(visits, 0.0, process.spec)
    assert visits.initial_sd == pytest.approx(made.init_noise_sigma)
    np.testing.assert_allclose(lines.asked.time, made.sigmas.double(), rtol=1e-5)
    x = torch.full((1, 1, 2, 2), 3.0, dtype=torch.float64)
    with drawing(made) as draw:
        for line, t in enumerate(made.timesteps):
            score = -x / (1.0 + lines.asked.sigma[line] ** 2)
            z = step_noise(line)[:1, :, :2, :2].double()
            draw(z)
            found = made.step_pred(score, t, x)
            wanted = found.prev_sample_mean if line == 29 else found.prev_sample  # as its pipeline does
            x0 = x + lines.asked.sigma[line] ** 2 * score
            x = lines.a[line] * x + lines.b[line] * x0 + lines.d[line] * z
            torch.testing.assert_close(x, wanted.double(), rtol=1e-4, atol=1e-4)
