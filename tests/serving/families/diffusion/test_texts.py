"""Texts as conditions: encoded once, equal ones together, and dropped by guidance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from export.package.schema import Condition
from serving.families.diffusion.family import DiffusionFamily
from serving.families.drive import run_alone
from serving.families.request import Operation, Request
from serving.families.result import Sampled
from serving.families.rows import Tensors
from tests.analytic.diffusion.gaussian import diffusion, levels_space, package

ELEMENTS, ROWS, LENGTH, WIDTH = 6, 3, 4, 2
TEXT = Condition(
    name="text", kind="text", shape=(LENGTH, WIDTH), null_tokens=(1, 2, 2, 2), when_absent="null"
)
GIVEN = np.array([[1, 7, 8, 2], [1, 9, 2, 2], [1, 7, 8, 2]])


class Reading:
    """Hidden states that are the tokens themselves; how many rows it has run."""

    rows = 0

    def __call__(self, inputs: Tensors) -> Tensors:
        self.rows += len(inputs["tokens"])
        return {"hidden": inputs["tokens"].float()[:, :, None].expand(-1, LENGTH, WIDTH).clone()}


class Denoising:
    """A prediction that is the mean of the hidden states."""

    def __init__(self) -> None:
        self.specs: dict[str, Any] = {
            "x": (torch.float32, (ELEMENTS,)),
            "t": (torch.float32, ()),
            "text": (torch.float32, (LENGTH, WIDTH)),
        }

    def __call__(self, inputs: Tensors) -> Tensors:
        return {"prediction": inputs["x"] * 0.0 + 0.01 * inputs["text"].mean(dim=(1, 2))[:, None]}


def sampled(guidance: float, conditions: dict[str, Any]) -> tuple[np.ndarray, int, int]:
    """Samples, rows that the text encoder ran, and rows that were told."""
    space = levels_space(ELEMENTS).model_copy(update={"levels": 0, "dtype": "float32"})
    spec = package(diffusion("vp"), space).model_copy(update={"conditions": (TEXT,)})
    family = DiffusionFamily(spec)
    request = Request(Operation.SAMPLE, "ddim", {"steps": 4, "guidance_scale": guidance}, 5, 0, ROWS,
                      conditions=conditions)  # fmt: skip
    reading = Reading()
    found = run_alone(
        family.program(request),
        {"denoiser": Denoising(), "text_encoder": reading},
        family.tables({}, ROWS, torch.device("cpu")),
    )
    assert isinstance(found, Sampled)
    return np.asarray(found.data, np.float64), reading.rows, family.network_rows(request)["text_encoder"]


def test_equal_texts_are_read_once() -> None:
    data, ran, told = sampled(1.0, {"text": GIVEN})
    assert (ran, told) == (2, ROWS)
    alone, _, _ = sampled(1.0, {"text": np.repeat(GIVEN[1:2], ROWS, axis=0)})
    np.testing.assert_array_equal(alone[1], data[1])
    assert (alone[0] != data[0]).any()


def test_guidance_moves_away_from_no_text() -> None:
    plain, _, _ = sampled(1.0, {"text": GIVEN})
    none, _, _ = sampled(1.0, {"text": np.tile(TEXT.null_tokens, (ROWS, 1))})
    guided, ran, told = sampled(3.0, {"text": GIVEN})
    assert (ran, told) == (3, ROWS + 1)
    np.testing.assert_allclose(guided, none + 3.0 * (plain - none), rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"), [({"null_tokens": (1,)}, "null_tokens"), ({"shape": (4,)}, "shape")]
)
def test_a_text_states_its_length_and_no_text(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Condition.model_validate(TEXT.model_dump() | change)
