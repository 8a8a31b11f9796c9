"""Coefficients: the identities that hold without any network, and the levels that are visited."""

from __future__ import annotations

import numpy as np
import pytest

from serving.families.diffusion.grid import levels_of, subsequence
from serving.families.diffusion.plan import KNOWN, LOW, RENOISE, Choices, Lines, plan_of
from serving.families.diffusion.process import Process
from serving.families.diffusion.samplers.ancestral import ancestral
from serving.families.diffusion.samplers.first_order import ddim
from serving.families.diffusion.samplers.registry import SAMPLERS
from tests.analytic.diffusion.gaussian import diffusion

KINDS = ("vp", "ve", "flow")


def _noise_variance(lines: Lines) -> np.ndarray:
    """Of x' for x0 = 0 and a unit noise e, estimated without error: x = sigma e, so x0^ = 0."""
    return np.asarray((lines.a * lines.asked.sigma) ** 2 + lines.d**2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_first_order_steps_keep_signal_and_noise_in_proportion(kind: str, eta: float) -> None:
    lines = ddim(levels_of(Process(diffusion(kind)), 40, "trailing"), eta)
    np.testing.assert_allclose(_noise_variance(lines), lines.after.sigma**2, atol=1e-9)
    np.testing.assert_allclose(lines.a * lines.asked.alpha + lines.b, lines.after.alpha, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_small_variance_is_exact_and_the_large_one_larger(kind: str) -> None:
    levels = levels_of(Process(diffusion(kind)), 40, "trailing")
    small, large = ancestral(levels), ancestral(levels, large=True)
    np.testing.assert_allclose(_noise_variance(small), levels.sigma[1:] ** 2, atol=1e-9)
    assert np.all(_noise_variance(large)[:-1] > levels.sigma[1:-1] ** 2)
    assert small.d[-1] == large.d[-1] == 0.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=lambda s: s.name)
def test_every_sampler_leaves_constant_data_in_place(kind: str, sampler: object) -> None:
    """With x0 known exactly, the signal's share of x' is alpha' whatever the history weighs."""
    found = SAMPLERS[sampler.name]  # type: ignore[attr-defined]
    if kind not in found.schedules:
        return
    lines = found.lines(levels_of(Process(diffusion(kind)), 10, found.spacing), 0.0)
    before = np.append(lines.asked.alpha[0], lines.after.alpha[:-1])
    signal = lines.a * before + lines.b + lines.history().sum(axis=1)
    np.testing.assert_allclose(signal, lines.after.alpha, atol=1e-9)


def test_sub_sequences_visit_what_their_names_say() -> None:
    assert subsequence(1000, 4, "trailing").tolist() == [999, 749, 499, 249]
    assert subsequence(1000, 4, "leading").tolist() == [750, 500, 250, 0]
    assert subsequence(1000, 4, "linspace").tolist() == [999, 666, 333, 0]
    for spacing in ("trailing", "leading", "linspace"):
        assert subsequence(1000, 1000, spacing).tolist() == list(range(999, -1, -1))


def test_karras_levels_span_the_schedule() -> None:
    process = Process(diffusion("ve"))
    ratio = levels_of(process, 10, "karras").ratio
    np.testing.assert_allclose([ratio[0], ratio[9], ratio[10]], [20.0, 0.01, 0.0], rtol=1e-9)
    assert np.all(np.diff(ratio) < 0)


def test_an_integer_time_network_is_told_whole_steps_at_their_own_levels() -> None:
    section = diffusion("vp", time_input="step")
    levels = levels_of(Process(section, integer_time=True), 20, "karras")
    assert np.all(levels.time[:-1] == np.rint(levels.time[:-1]))
    np.testing.assert_allclose(levels.alpha[:-1] ** 2 + levels.sigma[:-1] ** 2, 1.0)


@pytest.mark.parametrize(
    ("time_input", "first"), [("step", 999.0), ("fraction", 1.0), ("reversed_fraction", 0.0)]
)
def test_time_inputs_of_the_noisiest_step(time_input: str, first: float) -> None:
    process = Process(diffusion("vp", time_input=time_input))
    assert levels_of(process, 10, "trailing").time[0] == pytest.approx(first)


def test_a_plan_holds_the_noised_level_of_known_entries_and_the_clip_range() -> None:
    process = Process(diffusion("vp", clip_range=(-1.0, 1.0)))
    plan = plan_of(process, ancestral(levels_of(process, 10, "trailing")), Choices(clip=True))
    np.testing.assert_allclose(plan.exact[:, KNOWN] ** 2 + plan.exact[:, RENOISE] ** 2, 1.0)
    assert plan.exact[-1, KNOWN] == 1.0
    assert plan.exact[-1, RENOISE] == 0.0
    assert plan.coef.dtype == np.float32
    assert np.all(plan.exact[:, LOW] == -1.0)
