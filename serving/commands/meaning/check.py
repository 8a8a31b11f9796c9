"""One thing that should hold of a trained model, what was measured, and what is likely wrong otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

CLEARLY = 0.85  # an alternative must lower a loss to this part of it before it is called the likely mistake

UNEXPLAINED = "no single other reading explains it: untrained, another network's weights, or other data"


@dataclass(frozen=True)
class Check:
    """``value`` against ``bound`` (in ``unit``); ``mistake``: the likely one, "" where none is found.

    ``passed`` is false also where the value is within its bound but another reading fits far better.
    """

    name: str
    value: float
    bound: float
    passed: bool
    unit: str = ""
    detail: str = ""
    mistake: str = ""

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)

    @property
    def line(self) -> str:
        """For people."""
        verdict = "ok  " if self.passed else "FAIL"
        shown = f"{verdict} {self.name:<34} {self.value:.4g} (bound {self.bound:.4g}{self._unit})"
        shown += f"  {self.detail}" if self.detail else ""
        return shown + (f"\n     likely mistake: {self.mistake}" if self.mistake else "")

    @property
    def _unit(self) -> str:
        return f" {self.unit}" if self.unit else ""


@dataclass(frozen=True)
class Alternative:
    """Another reading of the network: what the package then gets wrong, and the ``loss`` under it (> 0)."""

    mistake: str
    loss: float


def below(
    name: str,
    loss: float,
    bound: float,
    alternatives: Iterable[Alternative],
    *,
    unit: str = "",
    detail: str = "",
) -> Check:
    """A loss that must stay below ``bound``, and that no other reading may lower clearly.

    Losses are compared as ratios, so they must be positive on a scale where that makes sense.
    """
    best = min(alternatives, key=lambda alternative: alternative.loss, default=None)
    better = best is not None and best.loss < CLEARLY * loss
    within = loss < bound
    mistake = ""
    if best is not None and better:
        mistake = f"{best.mistake}: {best.loss:.3g} instead of {loss:.3g}"
    elif not within:
        mistake = UNEXPLAINED
    return Check(name, loss, bound, within and not better, unit, detail, mistake)
