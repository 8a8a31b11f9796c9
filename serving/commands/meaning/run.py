"""All checks of a package's meaning, cheap ones first."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from serving.commands.dataset import Dataset
from serving.commands.meaning import autoencoder, autoregressive, common, diffusion, gan, vae
from serving.commands.meaning.check import Check
from serving.commands.meaning.subject import Subject
from serving.commands.offline import Offline
from serving.errors import invalid

FAMILIES: dict[str, Callable[[Subject], Iterator[Check]]] = {
    "autoencoder": autoencoder.checks,
    "autoregressive": autoregressive.checks,
    "diffusion": diffusion.checks,
    "gan": gan.checks,
    "vae": vae.checks,
}
LEAST_ROWS = 8
SLACK = 0.99  # by which another package must fit better before that is said


def meaning(running: Offline, rows: Dataset, threads: int = 0) -> Iterator[Check]:
    """Every check of the package, one by one; INVALID_ARGUMENT for fewer than ``LEAST_ROWS`` rows."""
    subject = _subject(running, rows, threads)
    yield from common.repeats(subject)
    yield from FAMILIES[subject.spec.family](subject)
    yield from common.samples(running, subject)


def against(running: Offline, other: Offline, rows: Dataset, threads: int = 0) -> Check:
    """The family's first loss of two packages on the same rows: two exports of one training, say."""
    mine, theirs = (_subject(each, rows, threads) for each in (running, other))
    if mine.spec.family != theirs.spec.family:
        raise invalid("against", f"it is of the family {theirs.spec.family}, not {mine.spec.family}")
    first, second = (_fit(each) for each in (mine, theirs))
    passed = first.value <= second.value / SLACK
    name = f"{theirs.spec.name}/{other.package.version}"
    mistake = "" if passed else f"{name} fits better: are these the weights without their average (EMA)?"
    return Check(f"{first.name}, against {name}", first.value, second.value, passed, first.unit, "", mistake)


def _fit(subject: Subject) -> Check:
    """The check that says how well the networks fit the rows."""
    return next(check for check in FAMILIES[subject.spec.family](subject) if "worst" not in check.name)


def _subject(running: Offline, rows: Dataset, threads: int) -> Subject:
    if len(rows) < LEAST_ROWS:
        raise invalid("data", f"{len(rows)} rows; checks of the meaning need at least {LEAST_ROWS}")
    return Subject(running.package, rows, threads)
