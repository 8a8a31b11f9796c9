"""Measured figures against their targets, and the page that shows them."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

PACKAGES = (
    "torch",
    "onnxruntime",
    "numpy",
    "grpcio",
    "transformers",
    "ctranslate2",
    "diffusers",
    "litserve",
    "openvino",
    "onnxruntime-genai",
)


@dataclass(frozen=True)
class Figure:
    """One measurement; ``sense`` says on which side of ``target`` it should lie."""

    benchmark: str
    name: str
    value: float
    target: float | None = None
    sense: Literal["at least", "at most"] = "at least"
    unit: str = ""
    note: str = ""
    machine: str = ""  # where it was measured

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.sense == "at least" else self.value <= self.target


def machine() -> str:
    """Where it was measured."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0))
    return (
        f"{cores} cores of {processor()}, {platform.system()}, Python {platform.python_version()}, "
        + ", ".join(found)
    )


def processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


def write(figures: list[Figure], page: Path, data: Path) -> None:
    """The page as Markdown, everything as JSON; benchmarks that did not run keep their last figures."""
    here = machine()
    figures = [replace(figure, machine=here) for figure in figures]
    if data.exists():
        ran = {figure.benchmark for figure in figures}
        before = [Figure(**entry) for entry in json.loads(data.read_text())["figures"]]
        figures = [figure for figure in before if figure.benchmark not in ran] + figures
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_text(json.dumps({"figures": [asdict(f) for f in figures]}, indent=1) + "\n")
    page.write_text(render(figures))


def render(figures: list[Figure]) -> str:
    """A table per benchmark; what falls short is said as plainly as what does not."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Every figure is a ratio within one run, or a median, on a shared machine:",
        "absolute times mean little, ratios do. Machines:",
        "",
    ]
    machines = list(dict.fromkeys(figure.machine for figure in figures))
    lines += [f"- {number}: {name}" for number, name in enumerate(machines, 1)]
    for benchmark in dict.fromkeys(figure.benchmark for figure in figures):
        mine = [figure for figure in figures if figure.benchmark == benchmark]
        where = ", ".join(str(machines.index(m) + 1) for m in dict.fromkeys(f.machine for f in mine))
        lines += ["", f"## {benchmark}", "", f"| figure, on machine {where} | measured | target | |"]
        lines += ["|---|---|---|---|", *map(_row, mine)]
        lines += [f"\n{note}" for note in dict.fromkeys(figure.note for figure in mine) if note]
    return "\n".join(lines) + "\n"


def _row(figure: Figure) -> str:
    verdict = {True: "met", False: "**falls short**", None: ""}[figure.met]
    target = "" if figure.target is None else f"{figure.sense} {figure.target:g}"
    return f"| {figure.name} | {figure.value:.3g} {figure.unit} | {target} | {verdict} |"
