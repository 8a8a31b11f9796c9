"""Small deterministic networks whose rows never meet, for tests of the machinery."""

from __future__ import annotations

import torch

from export.package.schema import Condition
from serving.families.rows import Tensors

LABEL = Condition(name="label", kind="class", classes=10, null_value=10, when_absent="null")


class Elementwise:
    """A nonlinear function of x, t and label, one IEEE operation per element at a time."""

    def __init__(self, shape: tuple[int, ...], labelled: bool = True) -> None:
        self.specs: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
            "x": (torch.float32, shape),
            "t": (torch.float32, ()),
        }
        if labelled:
            self.specs["label"] = (torch.int64, ())
        self.rows = 0

    def __call__(self, inputs: Tensors) -> Tensors:
        x = inputs["x"]
        self.rows += len(x)
        each = (-1, *[1] * (x.dim() - 1))
        shift = inputs["t"].reshape(each) * 0.0625
        if "label" in inputs:
            shift = shift + inputs["label"].reshape(each).float() * 0.125
        return {"prediction": (x * 0.75 + shift) / (1.0 + x * x)}
