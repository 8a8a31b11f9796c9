from __future__ import annotations

import re

import pytest

from export.zoo.graphs import load_network
from export.zoo.registry import ENTRIES, HERE
from export.zoo.train.figures import figures

RECOGNISED = "samples recognised as their class"


def card(name: str) -> dict[str, float]:
    """The table of a model card; shares as fractions."""
    text = (HERE / "cards" / f"{name}.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| ([\d.]+)( %)? \|$", text, re.MULTILINE)
    return {key: float(value) / (100 if percent else 1) for key, value, percent in rows}


@pytest.mark.parametrize("name", ENTRIES)
def test_card_says_what_is_measured(name: str) -> None:
    found, said = figures(name, load_network(ENTRIES[name])), card(name)
    assert found.keys() == said.keys()
    for key, value in found.items():
        # A share of 200 samples may move by a few of them where another processor rounds otherwise.
        assert value == pytest.approx(said[key], rel=0.01, abs=0.02), key
    assert found.get(RECOGNISED, 1.0) >= 0.9
    assert found.get("rarest class, share", 1.0) >= 0.02
