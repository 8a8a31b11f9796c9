"""What a check is, and what it found."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from serving.selftest.subject import Subject

FALSE_ALARM = 1e-6  # of checks whose statistic has a known law
PERMUTED_ALARM = 1e-3  # of permutation tests, whose p-values cannot be smaller than one over their number


class Verdict(enum.StrEnum):
    """Outcome of a check."""

    PASS = "pass"
    FAIL = "fail"
    NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True)
class Finding:
    """What a check found; ``detail`` says what was compared, and what a failure means."""

    verdict: Verdict
    statistic: float
    detail: str
    p_value: float | None = None


@dataclass(frozen=True)
class Check:
    """A finding under its check's name.

    ``holds_for_any_weights``: a FAIL is the server's fault; else it may say that the model is imperfect.
    """

    name: str
    verdict: Verdict
    statistic: float
    p_value: float | None
    holds_for_any_weights: bool
    detail: str


@dataclass(frozen=True)
class Definition:
    """One check: how it is run, and for which models it must hold."""

    run: Callable[[Subject], Awaitable[Finding]]
    holds_for_any_weights: bool


def judged(holds: bool, statistic: float, detail: str) -> Finding:
    """A comparison that holds or does not."""
    return Finding(Verdict.PASS if holds else Verdict.FAIL, statistic, detail)


def by_p_value(p_value: float, statistic: float, detail: str, alarm: float = FALSE_ALARM) -> Finding:
    """A statistical test: FAIL below the false-alarm rate."""
    verdict = Verdict.PASS if p_value >= alarm else Verdict.FAIL
    return Finding(verdict, statistic, detail, p_value)


def not_applicable(why: str) -> Finding:
    """The check says nothing about this model."""
    return Finding(Verdict.NOT_APPLICABLE, 0.0, why)
