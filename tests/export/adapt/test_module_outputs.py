"""Whatever a network returns, an output is found by place or name, or refused saying what there is."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from export.adapt.module import Adapted, OutputError, describe, pick
from export.adapt.steps import Scale
from export.adapt.wiring import Wire, Wiring

A, B = torch.ones(2, 3), torch.zeros(2, 3)
Pair = namedtuple("Pair", ["mu", "logvar"])


@dataclass
class Answer:
    mu: Tensor
    logvar: Tensor


@dataclass
class Sample:
    sample: Tensor
    note: str = ""


@pytest.mark.parametrize(
    ("found", "source"),
    [
        (A, 0),
        ((A, B), 0),
        ([A, B], 0),
        ({"mu": A, "logvar": B}, "mu"),
        ({"mean": A, "logvar": B}, 0),  # the package's own name
        ({"sample": A}, 0),  # the only tensor there is
        (Answer(A, B), "mu"),
        (Sample(A), 0),
        (Pair(A, B), "mu"),
        (Pair(A, B), 0),
    ],
)
def test_an_output_is_found(found: Any, source: int | str) -> None:
    assert pick(found, source, "mean") is A


@pytest.mark.parametrize(
    ("found", "source", "shown"),
    [
        ({"mu": A, "logvar": B}, 0, "a dict with 'mu', 'logvar'"),
        ({"mu": A, "logvar": B}, "mean", "has no 'mean'"),
        ((A, B), 2, "a tuple of 2 ([2, 3], [2, 3])"),
        (Answer(A, B), 0, "an Answer with 'mu', 'logvar'"),
        (A, 1, "one tensor [2, 3]"),
        ("text", 0, "a str with no tensors"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(found: Any, source: int | str, shown: str) -> None:
    with pytest.raises(OutputError) as caught:
        pick(found, source, "mean")
    assert shown.replace("an Answer", "a Answer") in str(caught.value)
    assert describe(found) in str(caught.value)


class Named(nn.Module):
    def forward(self, x: Tensor, *, scale: Tensor, shift: Tensor | None = None) -> dict[str, Tensor]:
        return {"y": x * scale + (0.0 if shift is None else shift), "x": x}


def test_inputs_go_by_name_where_a_name_is_stated() -> None:
    inputs = Wire("x", "float32", (3,)), Wire("t", "float32", (3,)), Wire("s", "float32", (3,))
    outputs = Wire("prediction", "float32", (3,), (Scale((2.0,)),)), Wire("x", "float32", (3,))
    wiring = Wiring.placed(inputs, outputs).named({"t": "scale", "s": "shift"}, {"prediction": "y"})
    doubled, x = Adapted(Named(), wiring)(A, 3 * A, A)
    assert torch.equal(doubled, 8 * A)
    assert torch.equal(x, A)


def test_a_name_that_the_component_lacks_is_refused() -> None:
    wiring = Wiring.placed([Wire("x", "float32", (3,))], [])
    with pytest.raises(ValueError, match="no value 'y' to rename; there are x"):
        wiring.named({"y": "input"}, {})
