"""The variational bound in rounds of draws, until a precision or a budget is reached, each row on its own."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.errors import invalid
from serving.families.capability import Parameter
from serving.families.diffusion.bound import Bound, bound
from serving.families.diffusion.denoiser import Denoiser
from serving.families.request import Request
from serving.families.result import Scored
from serving.families.rows import Progress, Tensors, Yield

MOST_ROUNDS = 64
PRECISION = (
    Parameter("target_standard_error", "float", None, 1e-6, 1e3),
    Parameter("max_network_evaluations", "int", None, 1, 10**9),
)


@dataclass(frozen=True)
class Rounds:
    """Draws of a row: ``each`` at a time, ``most`` in all; it stops at ``target`` standard error."""

    steps: int
    each: int
    most: int
    target: float | None

    @classmethod
    def of(cls, request: Request) -> Rounds:
        """From a request's parameters; InvalidArgument where the budget allows no draw.

        A target needs a standard error, hence at least two draws per round.
        """
        steps, each = int(request.parameters["steps"]), int(request.parameters["probes"])  # type: ignore[arg-type]
        target = request.parameters.get("target_standard_error")
        limit = request.parameters.get("max_network_evaluations")
        each = each if target is None else max(2, each)
        most = each * (1 if target is None else MOST_ROUNDS)
        if limit is not None:
            most = min(most, int(limit) // steps)  # type: ignore[arg-type]
            if most < 1:
                raise invalid("parameters.max_network_evaluations", f"one draw takes {steps} evaluations")
        return cls(steps, min(each, most), most, None if target is None else float(target))  # type: ignore[arg-type]

    def counts(self) -> list[int]:
        """Draws by round; a round of one draw, after others, would have no standard error."""
        whole, rest = divmod(self.most, self.each)
        return [self.each] * whole + ([rest] if rest > 1 else [])


@dataclass(frozen=True)
class Refined:
    """The bound so far, and how many draws each row took [rows]."""

    bound: Bound
    draws: NDArray[np.int64]


def refined(
    denoiser: Denoiser, request: Request, answer: Callable[[Refined], Scored]
) -> Generator[Yield, Tensors, Refined]:
    """Every row stops on its own standard error, so that none depends on its neighbours.

    Stopping on an estimated error favours rows whose early draws agree (Robbins 1959).
    """
    rounds = Rounds.of(request)
    active = np.arange(request.rows)
    prior, steps, decoder = np.zeros((3, request.rows, denoiser.elements))
    terms = Bound(prior, steps, decoder, np.zeros(request.rows))
    total = Refined(terms, np.zeros(request.rows, np.int64))
    for count in rounds.counts():
        first = int(total.draws[active[0]])
        part = yield from bound(denoiser, request, rounds.steps, count, first, active)
        _merge(total, part, active, count)
        if rounds.target is not None:
            yield Progress(answer(total))
            active = active[~(terms.error[active] <= rounds.target)]
        if not len(active):
            break
    return total


def _merge(total: Refined, part: Bound, rows: NDArray[np.int64], count: int) -> None:
    """Means over all draws; the errors of rounds are independent."""
    before = total.draws[rows].astype(np.float64)
    after = before + count
    for name in ("prior", "steps", "decoder"):
        mean = getattr(total.bound, name)
        mean[rows] += (getattr(part, name) - mean[rows]) * (count / after)[:, None]
    old = total.bound.error[rows] * before
    total.bound.error[rows] = np.sqrt(old**2 + (part.error * count) ** 2) / after
    total.draws[rows] += count
