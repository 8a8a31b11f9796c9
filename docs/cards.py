"""Writes the section of measured figures in every model card: ``python docs/cards.py [NAME ...]``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from export.package.read import list_versions, read_package
from export.package.schema import ModelSpec
from serving.commands.evaluate import Figure, Wanted, evaluate
from serving.families.registry import family_of
from serving.families.request import Operation

ROOT = Path(__file__).resolve().parents[1]
CARDS = ROOT / "export" / "zoo" / "cards"
BEGIN, END = "<!-- begin: written by docs/cards.py -->", "<!-- end: written by docs/cards.py -->"
COLUMNS = (
    "method",
    "kind",
    "target",
    "base measure",
    "mean ± standard error",
    "rows",
    "network rows per row",
)

# What takes longer than seconds for the whole test split, by family and method.
SLOW: dict[tuple[str, str], Wanted] = {
    ("autoregressive", "probability_integral_transform"): Wanted(32),
    ("diffusion", "probability_flow_ode"): Wanted(32),
    ("diffusion", "inversion"): Wanted(64),
    ("gan", "ais"): Wanted(12, parameters={"surrogate_sigma": 2.0, "steps": 50, "importance_samples": 8}),
    ("gan", "inversion"): Wanted(32),
    ("vae", "ais"): Wanted(8),
    ("vae", "ais_prior"): Wanted(8, parameters={"steps": 100}),
}
# Again on the rows of the slow methods of the same target, so that an order can be read off.
PAIRED = {"vae": Wanted(8, methods=("elbo", "iwae"))}

HEAD = """## By every method, through the server

Measured by the serving engine on the first rows of the test split{given}, each line by
`pxserve-server evaluate {name} --models models --data build/data/{data}-test.npz --method METHOD --rows ROWS`
(and `--set NAME=VALUE` for every parameter in brackets); `python docs/cards.py {name}` writes them all.
A standard error is that of the mean over the rows. Bounds are ordered only within one target and on the same
rows, where the tighter one shows fewer bits; no theorem orders figures of different targets or base measures.
{note}
"""
NOTES = {
    "autoencoder": "An autoencoder has no p(x): its error is no likelihood.",
    "autoregressive": "`smc` is for rows with hidden entries: where all are given, it is the exact value.",
    "diffusion": "The bound scores the ancestral sampler's density, the flow likelihood that of the"
    "\nprobability-flow equation on uniformly dequantised levels: the two are different quantities.",
    "gan": "The surrogate is the density of generated data plus Gaussian noise of width `surrogate_sigma`, in"
    "\nlevels: it belongs to that declared width, not to the GAN alone.",
    "vae": "The second `elbo` and `iwae` are on the rows of `ais` and `ais_prior`, for comparison.",
}


def main(names: Sequence[str], models: Path = ROOT / "models", data: Path = ROOT / "build" / "data") -> None:
    """Measure and rewrite the cards of these models; all of them where none is named."""
    for name, versions in sorted(list_versions(models).items()):
        if not names or name in names:
            spec = read_package(models / name / str(versions[-1])).spec
            write(CARDS / f"{name}.md", section(spec, list(figures(spec, models, data))))
            sys.stdout.write(f"{name}\n")


def figures(spec: ModelSpec, models: Path, data: Path) -> Iterator[Figure]:
    """Every applicable figure of one model."""
    for wanted in plan(spec):
        yield from evaluate(models, spec.name, None, data / f"{_split(spec)}-test.npz", wanted, threads=1)


def plan(spec: ModelSpec) -> list[Wanted]:
    """The cheap methods on every row, then each slow one on its own rows."""
    listed = [
        method.name
        for capability in family_of(spec).capabilities()
        if capability.operation in (Operation.LIKELIHOOD, Operation.RECONSTRUCT)
        for method in capability.methods
    ]
    cheap = [name for name in listed if (spec.family, name) not in SLOW]
    slow = [name for name in listed if (spec.family, name) in SLOW]
    plans = [Wanted(methods=tuple(cheap))] if cheap else []
    if spec.family in PAIRED:
        plans.append(PAIRED[spec.family])
    for name in slow:
        given = SLOW[spec.family, name]
        plans.append(Wanted(given.rows, (name,), given.parameters))
    return plans


def section(spec: ModelSpec, found: Sequence[Figure]) -> str:
    """The section between its markers."""
    given = " with their classes" if spec.conditions else ""
    head = HEAD.format(name=spec.name, data=_split(spec), given=given, note=NOTES[spec.family])
    table = [COLUMNS, ("---",) * len(COLUMNS), *map(_cells, found)]
    lines = "\n".join("| " + " | ".join(cells) + " |" for cells in table)
    return f"{BEGIN}\n{head}\n{lines}\n{END}\n"


def write(card: Path, text: str) -> None:
    """Replace the card's section, or append it."""
    kept = re.sub(rf"\n*{BEGIN}.*{END}\n*", "\n", card.read_text(encoding="utf-8"), flags=re.DOTALL)
    card.write_text(f"{kept.rstrip()}\n\n{text}", encoding="utf-8")


def _cells(figure: Figure) -> tuple[str, ...]:
    changed = ", ".join(f"{name} = {value}" for name, value in figure.parameters.items())
    return (
        f"{figure.operation} `{figure.method}`" + (f" ({changed})" if changed else ""),
        figure.kind,
        figure.target or "–",
        figure.base_measure or "–",
        f"{figure.mean:.4f} ± {figure.standard_error:.4f} {figure.unit}",
        str(figure.rows),
        ", ".join(f"{count} {name}" for name, count in figure.network_rows.items()),
    )


def _split(spec: ModelSpec) -> str:
    return spec.name.partition("-")[0]


if __name__ == "__main__":
    main(sys.argv[1:])
