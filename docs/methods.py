"""Writes docs/methods.md (every method of every reference model) and the README's table of them by family."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from export.package.read import list_versions, read_package
from serving.engine.example import example_request
from serving.families.capability import Capability, Method, Parameter
from serving.families.registry import family_of

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "methods.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- begin: written by docs/methods.py -->", "<!-- end: written by docs/methods.py -->"
TABLE = """| family | operation | methods: kind; network rows for one row, at the defaults; reference |
|---|---|---|"""
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


def readme(models: Path) -> str:
    """The README with its table of methods made anew."""
    made = f"{BEGIN}\n{TABLE}\n" + "\n".join(_by_family(models)) + f"\n{END}"
    return re.sub(rf"{BEGIN}.*{END}", lambda _: made, README.read_text(encoding="utf-8"), flags=re.DOTALL)


@dataclass
class _Shared:
    """A method of several models of one family, which may differ in defaults and components."""

    method: Method
    is_default: bool = False
    network_rows: list[dict[str, int]] = field(default_factory=list)

    def __str__(self) -> str:
        name = f"**{self.method.name}**" if self.is_default else self.method.name
        parts = (self.method.kind.lower().replace("_", " "), self._cost(), self.method.reference)
        return f"{name} ({'; '.join(part for part in parts if part)})"

    def _cost(self) -> str:
        alike: dict[tuple[str, ...], list[dict[str, int]]] = {}
        for counts in self.network_rows:
            alike.setdefault(tuple(counts), []).append(counts)
        return " or ".join(_range(several) for several in alike.values())


def _range(several: list[dict[str, int]]) -> str:
    bounds = [(name, [counts[name] for counts in several]) for name in several[0]]
    return ", ".join(f"{'–'.join(str(x) for x in sorted({min(n), max(n)}))} {name}" for name, n in bounds)


def _by_family(models: Path) -> Iterator[str]:
    """A line per family and operation."""
    found: dict[tuple[str, str], dict[str, _Shared]] = {}
    for name, versions in sorted(list_versions(models).items()):
        spec = read_package(models / name / str(versions[-1])).spec
        family = family_of(spec)
        for capability in family.capabilities():
            methods = found.setdefault((spec.family, capability.operation.value), {})
            for method in capability.methods:
                shared = methods.setdefault(method.name, _Shared(method))
                shared.is_default |= method.is_default
                request = example_request(spec, family, capability, method)
                shared.network_rows.append(family.network_rows(request))
    for (group, operation), methods in sorted(found.items(), key=lambda item: item[0][0]):
        listed = "<br>".join(str(shared) for shared in methods.values())
        yield f"| {group} | {operation} | {listed or 'not defined'} |"


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
    README.write_text(readme(ROOT / "models"), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n{README}\n")
