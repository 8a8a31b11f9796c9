"""All checks by name; a new one is one file and one line here."""

from __future__ import annotations

from collections.abc import Sequence

from serving.errors import FailedPrecondition, invalid
from serving.selftest.batch_independence import batch_independence
from serving.selftest.calibration import p_values_uniform
from serving.selftest.check import Check, Definition, not_applicable
from serving.selftest.completions import given_entries, unobserved_entries
from serving.selftest.invariance import completion_invariance
from serving.selftest.likelihoods import (
    annealed_bound,
    bounds_ordered,
    latents_of_samples,
    likelihood_finite,
    sampling_log_prob,
)
from serving.selftest.round_trips import round_trip, round_trip_error
from serving.selftest.same_seed import same_seed
from serving.selftest.split import split
from serving.selftest.subject import Subject

CHECKS: dict[str, Definition] = {
    "same_seed": Definition(same_seed, True),
    "split": Definition(split, True),
    "batch_independence": Definition(batch_independence, True),
    "given_entries": Definition(given_entries, True),
    "unobserved_entries": Definition(unobserved_entries, True),
    "likelihood_finite": Definition(likelihood_finite, True),
    "sampling_log_prob": Definition(sampling_log_prob, True),
    "latents_of_samples": Definition(latents_of_samples, True),
    "bounds_ordered": Definition(bounds_ordered, True),
    "round_trip_error": Definition(round_trip_error, True),
    "round_trip": Definition(round_trip, False),
    "annealed_bound": Definition(annealed_bound, False),
    "completion_invariance": Definition(completion_invariance, False),
    "p_values_uniform": Definition(p_values_uniform, False),
}


def check_names(names: Sequence[str]) -> None:
    """InvalidArgument for a name that is none."""
    for index, name in enumerate(names):
        if name not in CHECKS:
            raise invalid(f"checks[{index}]", f"{name!r} is none of {', '.join(CHECKS)}")


async def run_checks(subject: Subject, names: Sequence[str] = ()) -> list[Check]:
    """The checks named, or all, one after the other."""
    check_names(names)
    return [await _run(subject, name) for name in names or CHECKS]


async def _run(subject: Subject, name: str) -> Check:
    definition = CHECKS[name]
    try:
        found = await definition.run(subject)
    except FailedPrecondition as error:
        found = not_applicable(error.message)
    return Check(
        name, found.verdict, found.statistic, found.p_value, definition.holds_for_any_weights, found.detail
    )
