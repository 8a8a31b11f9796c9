"""The last figures of every long run: docs/reliability.json, and the page that shows them."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tests.benchmarks.figures import machine

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
DATA = PAGE.with_suffix(".json")
HEAD = """\
# Reliability

What was done to the server, and what it did. Written by the runs themselves (`make reliability` and
`make soak`); `docs/reliability.json` has the same as data. Shorter versions of every test run with
`make test`. A run fails where a bound does not hold, and this page then says that it **falls short**.

Held by tests that need no long run: every verb times every way to end (`tests/e2e/test_release.py`);
an engine's process that is killed (`tests/e2e/test_engine_process.py`); networks that return NaN, raise,
want all memory or hang (`tests/reliability/test_bad_networks.py`); batches that change nobody's bits
(`tests/e2e/test_determinism.py`); versions of a model replaced under load, and rolled back where the new
one fails (`tests/e2e/test_hot_reload.py`); broken certificates (`tests/serving/api/test_certificates.py`).
"""


@dataclass(frozen=True)
class Figure:
    """One measured number; ``sense`` says on which side of ``bound`` it has to lie."""

    name: str
    value: float
    unit: str = ""
    bound: float | None = None
    sense: Literal["at least", "at most"] = "at least"

    @property
    def met(self) -> bool:
        """Whether it lies on the right side of its bound, if it has one."""
        if self.bound is None:
            return True
        return self.value >= self.bound if self.sense == "at least" else self.value <= self.bound


Record = Callable[[str, Sequence[Figure], str], None]


def keep(title: str, figures: Sequence[Figure], note: str, command: str) -> None:
    """Replace the figures of one run by the new ones."""
    runs: dict[str, Any] = json.loads(DATA.read_text()) if DATA.exists() else {}
    runs[title] = {
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "note": note,
        "figures": [asdict(figure) for figure in figures],
    }
    DATA.write_text(json.dumps(dict(sorted(runs.items())), indent=1) + "\n")
    PAGE.write_text(render())


def render() -> str:
    """The page."""
    runs: dict[str, Any] = json.loads(DATA.read_text()) if DATA.exists() else {}
    parts = [HEAD]
    for title, run in runs.items():
        rows = "\n".join(_row(Figure(**figure)) for figure in run["figures"])
        parts.append(
            f"## {title}\n\n{run['note']}\n\n| figure | measured | bound |\n|---|---|---|\n{rows}\n\n"
            f"`{run['command']}`, {run['date']}. Machine: {run['machine']}.\n"
        )
    return "\n".join(parts)


def _row(figure: Figure) -> str:
    bound = "" if figure.bound is None else f"{figure.sense} {figure.bound:g}"
    bound += "" if figure.met else ": **falls short**"
    value = f"{figure.value:,.0f}" if figure.value == round(figure.value) else f"{figure.value:.4g}"
    return f"| {figure.name} | {value} {figure.unit} | {bound} |"


if __name__ == "__main__":
    PAGE.write_text(render())
