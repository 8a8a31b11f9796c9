"""The model cards' figures are what ``pxserve-server evaluate`` measures, and their bounds are in order."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from export.zoo.splits import write_splits
from serving.commands.evaluate import Wanted, evaluate
from serving.errors import InvalidArgument
from tests.e2e.conftest import IMAGE_MODELS, TEXT_MODELS

pytestmark = pytest.mark.xdist_group("e2e")

CARDS = Path(__file__).parents[2] / "export" / "zoo" / "cards"
LINE = re.compile(
    r"^\| likelihood `(\w+)`.*? \| (\w+) \| (\w+) \| (\w+) \| ([\d.]+) ± ([\d.]+) bits/dim \| (\d+) \|", re.M
)
CHEAP = [
    ("digits-autoregressive", "exact"),
    ("digits-pixelcnn", "exact"),
    ("text-autoregressive", "exact"),
    ("digits-vae", "elbo"),
    ("digits-vae", "iwae"),
]
ROWS = 24


@dataclass(frozen=True)
class Line:
    """A likelihood of a card."""

    method: str
    kind: str
    target: str
    base_measure: str
    mean: float
    standard_error: float
    rows: int


def lines(name: str) -> list[Line]:
    """The likelihoods of a card, in its order."""
    found = LINE.findall((CARDS / f"{name}.md").read_text(encoding="utf-8"))
    return [
        Line(method, kind, target, base, float(mean), float(error), int(rows))
        for method, kind, target, base, mean, error, rows in found
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_splits(folder)
    return folder


@pytest.mark.parametrize("name", [*IMAGE_MODELS, *TEXT_MODELS])
def test_a_card_has_every_method_of_the_model(name: str) -> None:
    text = (CARDS / f"{name}.md").read_text(encoding="utf-8")
    page = (CARDS.parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    listed = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    methods = set(re.findall(r"^\| (?:likelihood|reconstruct) \| \**(\w+)\** \|", listed, re.M))
    assert methods == set(re.findall(r"^\| (?:likelihood|reconstruct) `(\w+)`", text, re.M))


@pytest.mark.parametrize(("name", "method"), CHEAP)
def test_a_card_says_what_is_measured(models: Path, data: Path, name: str, method: str) -> None:
    said = next(line for line in lines(name) if line.method == method)
    split = data / f"{name.partition('-')[0]}-test.npz"
    found = evaluate(models, name, None, split, Wanted(ROWS, (method,)), threads=1)[0]
    assert (found.kind, found.target, found.base_measure) == (said.kind, said.target, said.base_measure)
    assert abs(found.mean - said.mean) <= 3 * math.hypot(found.standard_error, said.standard_error)


def test_the_bounds_of_one_target_are_ordered_on_the_same_rows() -> None:
    known = lines("digits-vae")
    fewest = min(line.rows for line in known)
    elbo, iwae, ais = (
        next(line for line in known if line.method == method and line.rows == fewest)
        for method in ("elbo", "iwae", "ais")
    )
    assert elbo.target == iwae.target == ais.target
    for looser, tighter in ((elbo, iwae), (iwae, ais)):
        slack = math.hypot(looser.standard_error, tighter.standard_error)
        assert tighter.mean <= looser.mean + slack  # a higher bound is fewer bits


@pytest.mark.parametrize("wanted", [Wanted(1, ("elbow",)), Wanted(1, parameters={"sigma": 1.0})])
def test_a_method_or_parameter_that_the_model_lacks_is_refused(
    models: Path, data: Path, wanted: Wanted
) -> None:
    with pytest.raises(InvalidArgument):
        evaluate(models, "digits-autoencoder", None, data / "digits-test.npz", wanted, threads=1)


def test_a_surrogate_is_measured_only_with_a_declared_sigma(models: Path, data: Path) -> None:
    declared = {"surrogate_sigma": 2.0, "steps": 2, "importance_samples": 2}
    split = data / "digits-test.npz"
    assert not evaluate(models, "digits-gan", None, split, Wanted(1, ("ais",)), threads=1)
    figure = evaluate(models, "digits-gan", None, split, Wanted(2, ("ais",), declared), threads=1)[0]
    assert (figure.kind, figure.rows, dict(figure.parameters)) == ("surrogate", 2, declared)
