"""Writes docs/methods.md: every method of every reference model, with its kind, reference and cost."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from export.package.read import list_versions, read_package
from serving.engine.example import example_request
from serving.families.capability import Capability, Method, Parameter
from serving.families.registry import family_of

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "methods.md"
HEAD = """# Methods

Every method of every reference model, as `GetModel` lists them; written by `python docs/methods.py`.
A cost is in network rows for one row of the answer, at the defaults: multiply by the seconds per row of the
model's network on your device (`GetModel` reports the measured `row_seconds`). The default method is bold.
Bounds and estimates of different *targets* are not ordered by any theorem: the variational bound scores
the ancestral sampler's density, the probability-flow likelihood another one.
"""


def page(models: Path) -> str:
    """The whole page."""
    lines = [HEAD]
    for name, versions in sorted(list_versions(models).items()):
        lines += [f"\n## {name}\n", *_model(models / name / str(versions[-1]))]
    return "\n".join(lines) + "\n"


def _model(folder: Path) -> Iterator[str]:
    spec = read_package(folder).spec
    family = family_of(spec)
    yield f"{spec.description}\n"
    yield "| operation | method | kind | parameters | network rows | reference |"
    yield "|---|---|---|---|---|---|"
    for capability in family.capabilities():
        for method in capability.methods:
            rows = family.network_rows(example_request(spec, family, capability, method))
            yield _row(capability, method, ", ".join(f"{count} {name}" for name, count in rows.items()))
        if not capability.supported:
            yield f"| {capability.operation} | | | | | not defined: {capability.reason} |"


def _row(capability: Capability, method: Method, cost: str) -> str:
    name = f"**{method.name}**" if method.is_default else method.name
    parameters = ", ".join(_parameter(parameter) for parameter in method.parameters)
    return f"| {capability.operation} | {name} | {method.kind} | {parameters} | {cost} | {method.reference} |"


def _parameter(parameter: Parameter) -> str:
    default = "" if parameter.default is None else f" = {parameter.default}"
    return f"`{parameter.name}{default}`"


if __name__ == "__main__":
    PAGE.write_text(page(ROOT / "models"))
    sys.stdout.write(f"{PAGE}\n")
