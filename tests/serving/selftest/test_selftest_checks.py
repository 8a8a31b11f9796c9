"""Every check passes on models whose answers are right, and fails on the defect that it is there for."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from serving.errors import InvalidArgument
from serving.families.calibration import Calibration
from serving.families.request import Array, Operation, Request
from serving.families.result import Completed, Encoded, Result, Sampled, Scored
from serving.selftest.check import Check, Verdict
from serving.selftest.registry import CHECKS, run_checks
from serving.selftest.subject import Subject
from tests.analytic.latent.closed_form import LinearVae
from tests.serving.selftest.subjects import Break, chain, gaussian, vae


def run(subject: Subject, *names: str) -> dict[str, Check]:
    return {check.name: check for check in asyncio.run(run_checks(subject, names))}


def verdicts(subject: Subject) -> dict[Verdict, set[str]]:
    found = run(subject)
    return {v: {name for name, check in found.items() if check.verdict is v} for v in Verdict}


def test_a_right_chain_passes_every_check_that_applies() -> None:
    found = verdicts(chain())
    assert found[Verdict.FAIL] == set()
    assert found[Verdict.NOT_APPLICABLE] == {"bounds_ordered", "annealed_bound", "p_values_uniform"}


def test_a_right_vae_passes_every_check_that_applies() -> None:
    found = verdicts(vae())
    assert found[Verdict.FAIL] == set()
    assert {"bounds_ordered", "annealed_bound", "completion_invariance"} <= found[Verdict.PASS]


def test_a_right_flow_passes_every_check_that_applies() -> None:
    found = verdicts(gaussian())
    assert found[Verdict.FAIL] == set()
    assert {"round_trip_error", "completion_invariance", "likelihood_finite"} <= found[Verdict.PASS]


def moved(data: Array, by: float) -> Array:
    return (data.astype(np.float64) + by).astype(data.dtype)


def of_size(request: Request, result: Result) -> Result:
    """Rows that depend on how many there are."""
    if isinstance(result, Sampled):
        return replace(result, data=moved(result.data, request.rows))
    return result


def overwritten(request: Request, result: Result) -> Result:
    """Completions that change what was given."""
    if isinstance(result, Completed):
        return replace(result, data=moved(result.data, 1e-6))
    return result


def peeking(request: Request, result: Result) -> Result:
    """Completions that read what is hidden."""
    if isinstance(result, Completed):
        assert request.data is not None
        assert request.observed is not None
        hidden = np.where(request.observed, 0.0, 1e-3 * request.data.astype(np.float64))
        return replace(result, data=(result.data + hidden[:, None]).astype(result.data.dtype))
    return result


def careless(request: Request, result: Result) -> Result:
    """Completions that shrink towards the mean."""
    if isinstance(result, Completed):
        assert request.observed is not None
        hidden = ~request.observed[:, None]
        shrunk = np.where(hidden, 0.3 * result.data.astype(np.float64), result.data.astype(np.float64))
        return replace(result, data=shrunk.astype(result.data.dtype))
    return result


def boastful(request: Request, result: Result) -> Result:
    """Round-trip errors half of what they are, a bound above its better, a likelihood of other rows."""
    if isinstance(result, Encoded) and result.round_trip_error is not None:
        return replace(result, round_trip_error=0.5 * result.round_trip_error)
    if isinstance(result, Scored):
        return replace(
            result, log_prob=result.log_prob + (1.0 if request.method in ("elbo", "exact") else 0.0)
        )
    return result


@pytest.mark.parametrize(
    ("subject", "breaking", "name"),
    [
        ("gaussian", of_size, "split"),
        ("vae", overwritten, "given_entries"),
        ("vae", peeking, "unobserved_entries"),
        ("vae", careless, "completion_invariance"),
        ("vae", boastful, "round_trip_error"),
        ("wrong vae", boastful, "bounds_ordered"),
        ("chain", boastful, "sampling_log_prob"),
    ],
)
def test_a_defect_is_found(subject: str, breaking: Break, name: str) -> None:
    wrong = LinearVae(inflation=1.5, shift=0.1)
    broken = {
        "gaussian": lambda: gaussian(breaking), "vae": lambda: vae(None, breaking),
        "wrong vae": lambda: vae(wrong, breaking), "chain": lambda: chain(breaking),
    }[subject]()  # fmt: skip
    assert run(broken, name)[name].verdict is Verdict.FAIL


def test_answers_that_change_from_time_to_time_are_found() -> None:
    asked = []

    def drifting(request: Request, result: Result) -> Result:
        asked.append(request)
        return replace(result, data=moved(result.data, len(asked))) if isinstance(result, Sampled) else result

    found = run(gaussian(drifting), "same_seed", "batch_independence")
    assert {check.verdict for check in found.values()} == {Verdict.FAIL}


def test_samples_of_another_law_are_found_by_their_latents() -> None:
    def stuck(request: Request, result: Result) -> Result:
        if isinstance(result, Sampled):  # the first half of every row is symbol 0
            data = np.where(np.arange(8) < 4, 0, result.data).astype(result.data.dtype)
            return replace(result, data=data)
        return result

    found = run(chain(stuck), "latents_of_samples")["latents_of_samples"]
    assert found.verdict is Verdict.FAIL
    assert found.p_value is not None
    assert found.p_value < 1e-6


@pytest.mark.parametrize(("offset", "verdict"), [(0.0, Verdict.PASS), (4.0, Verdict.FAIL)])
def test_a_calibration_on_other_rows_is_found(offset: float, verdict: Verdict) -> None:
    subject = chain()
    sampler = subject.method(Operation.SAMPLE)
    assert sampler is not None
    request = subject.request(Operation.SAMPLE, sampler, 512, 1000)

    async def draw() -> Result:
        return await subject.ask(request)

    rows = asyncio.run(draw())
    assert isinstance(rows, Sampled)
    assert rows.log_prob is not None
    surprisal = -rows.log_prob + offset
    calibration = Calibration.fit("p", {"typicality": surprisal[:400]}, {"typicality": surprisal[400:]})
    found = run(chain(calibration=calibration), "p_values_uniform")["p_values_uniform"]
    assert found.verdict is verdict
    assert not found.holds_for_any_weights


def test_without_rows_nothing_is_claimed() -> None:
    subject = replace(vae(), capabilities=())
    assert {check.verdict for check in run(subject).values()} == {Verdict.NOT_APPLICABLE}


def test_small_differences_prove_nothing_where_bits_are_not_promised() -> None:
    noise = iter(np.random.default_rng(1).standard_normal(100))

    def rounding(size: float) -> Break:
        def rounded(request: Request, result: Result) -> Result:
            if isinstance(result, Sampled):
                return replace(result, data=moved(result.data, size * next(noise)))
            return result

        return rounded

    for size, verdict in ((1e-5, Verdict.NOT_APPLICABLE), (3.0, Verdict.FAIL)):
        subject = replace(gaussian(rounding(size)), bitwise=False)
        assert run(subject, "same_seed")["same_seed"].verdict is verdict


def test_details_say_what_was_compared_and_unknown_names_are_refused() -> None:
    assert all(len(check.detail) > 20 for check in run(vae()).values())
    with pytest.raises(InvalidArgument, match="none of same_seed"):
        run(vae(), "no_such_check")
    assert all(name.isidentifier() for name in CHECKS)
