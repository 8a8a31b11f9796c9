from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from export.package.schema import Affine, DataSpace, Observation
from serving.families.latent.lanes import Lanes
from serving.families.latent.observation import ObservationModel, observation_model
from serving.families.request import Operation, Request
from serving.families.result import BaseMeasure

ROWS = 3


def space(levels: int, scale: float = 0.125) -> DataSpace:
    return DataSpace(
        kind="image", axes=("channel", "width"), shape=(1, 2), dtype="uint8" if levels else "float32",
        levels=levels, transform=Affine(scale=(scale,), shift=(-1.0,)),
    )  # fmt: skip


def outputs(kind: str, levels: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    if kind == "bernoulli":
        return {"logits": draw(ROWS, 1, 2)}
    if kind == "categorical":
        return {"logits": draw(ROWS, levels, 1, 2)}
    return {"mean": draw(ROWS, 1, 2), "log_scale": draw(ROWS, 1, 2) - 2.0}


CASES = [
    ("bernoulli", 2, 0.5),
    ("categorical", 5, 0.5),
    ("discretized_logistic", 17, 0.125),
    ("discretized_logistic", 6, -0.4),
]


def model(kind: str, levels: int, scale: float) -> ObservationModel:
    return observation_model(space(levels, scale), Observation.model_validate({"kind": kind}))


def every_level(made: ObservationModel, levels: int, found: dict[str, torch.Tensor]) -> torch.Tensor:
    """ln P of each level, [levels, rows, 1, 2]."""
    return torch.stack(
        [made.log_prob(found, made.from_levels(torch.full((ROWS, 1, 2), level))) for level in range(levels)]
    )


@pytest.mark.parametrize(("kind", "levels", "scale"), CASES)
def test_masses_sum_to_one(kind: str, levels: int, scale: float) -> None:
    made, found = model(kind, levels, scale), outputs(kind, levels)
    total = every_level(made, levels, found).exp().sum(dim=0)
    assert made.base_measure is BaseMeasure.COUNTING
    np.testing.assert_allclose(total.numpy(), 1.0, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kind", "levels", "scale"), CASES)
def test_moments_are_those_of_the_masses(kind: str, levels: int, scale: float) -> None:
    made, found = model(kind, levels, scale), outputs(kind, levels)
    mass = every_level(made, levels, found).exp()
    value = (scale * torch.arange(levels, dtype=torch.float64) - 1.0).reshape(-1, 1, 1, 1)
    mean, variance = made.moments(found)
    np.testing.assert_allclose(mean.numpy(), (mass * value).sum(0).numpy(), atol=1e-12)
    np.testing.assert_allclose(
        variance.numpy(), (mass * (value - (mass * value).sum(0)) ** 2).sum(0).numpy(), atol=1e-12
    )


@pytest.mark.parametrize(("kind", "levels", "scale"), CASES)
def test_draws_follow_the_masses(kind: str, levels: int, scale: float) -> None:
    made, found, draws = model(kind, levels, scale), outputs(kind, levels), 4000
    request = Request(Operation.SAMPLE, "", {}, 5, 0, ROWS)
    lanes = Lanes.of(request, draws, torch.device("cpu"))
    wide = {name: value.repeat_interleave(draws, dim=0) for name, value in found.items()}
    levels_drawn = torch.round(made.to_levels(made.sample(wide, lanes, 0))).reshape(ROWS, draws, 1, 2)
    mass = every_level(made, levels, found).exp()
    for level in range(levels):
        share = (levels_drawn == level).double().mean(dim=1)
        slack = 4.9 * torch.sqrt(mass[level] * (1 - mass[level]) / draws) + 5.0 / draws
        assert bool(((share - mass[level]).abs() <= slack).all())


@pytest.mark.parametrize(
    ("kind", "levels", "scale"), [*CASES, ("gaussian", 0, 0.125), ("gaussian", 17, 0.125)]
)
def test_slopes_are_the_derivatives(kind: str, levels: int, scale: float) -> None:
    made, found = model(kind, levels, scale), outputs(kind, levels)
    leaves = {name: value.double().requires_grad_() for name, value in found.items()}
    for level in range(max(levels, 3)):
        x = made.from_levels(torch.full((ROWS, 1, 2), level))
        gradients = torch.autograd.grad(made.log_prob(leaves, x).sum(), list(leaves.values()))
        slopes = made.slopes(found, x)
        for name, gradient in zip(leaves, gradients, strict=True):
            np.testing.assert_allclose(slopes[name].numpy(), gradient.numpy(), rtol=1e-6, atol=1e-9)


def test_far_tails_stay_finite() -> None:
    made = model("discretized_logistic", 17, 0.125)
    found = {"mean": torch.full((1, 1, 2), 40.0), "log_scale": torch.full((1, 1, 2), -5.0)}
    log_p = made.log_prob(found, made.from_levels(torch.tensor([[[0, 3]]])))
    rate = math.exp(5.0)
    assert log_p[0, 0, 0] == pytest.approx(rate * (-1 + 0.0625 - 40.0), rel=1e-9)
    assert bool(torch.isfinite(log_p).all())


def test_a_density_carries_the_scale_of_the_data() -> None:
    made = observation_model(space(0), Observation(kind="gaussian", scale=0.5))
    found = {"mean": torch.zeros(1, 1, 2)}
    log_p = made.log_prob(found, torch.zeros(1, 1, 2))
    assert made.base_measure is BaseMeasure.LEBESGUE
    assert log_p[0, 0, 0] == pytest.approx(-math.log(0.5 * math.sqrt(2 * math.pi)) + math.log(0.125))


@pytest.mark.parametrize(
    ("kind", "levels"), [("bernoulli", 17), ("categorical", 0), ("discretized_logistic", 0)]
)
def test_a_model_that_is_no_probability_over_the_data_is_refused(kind: str, levels: int) -> None:
    with pytest.raises(ValueError, match="is a probability only over"):
        model(kind, levels, 1.0)
