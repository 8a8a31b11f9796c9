"""Texts as conditions: token ids become what the denoiser reads of them, once, before the loop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from export.package.schema import Condition, ModelSpec
from serving.families.absent import absent
from serving.families.diffusion.denoiser import null_key
from serving.families.diffusion.latents import Inner
from serving.families.request import Request
from serving.families.rows import Call, Program

TEXT_ENCODER = "text_encoder"


def text_condition(spec: ModelSpec) -> Condition | None:
    """The condition that is a text, where there is one."""
    return next((condition for condition in spec.conditions if condition.kind == "text"), None)


class Texts:
    """The text encoder around the programs of one package."""

    def __init__(self, condition: Condition) -> None:
        self._condition = condition

    def program(self, request: Request, inner: Inner) -> Program:
        """``inner`` of the request with hidden states for token ids; equal texts are read once."""
        name, ids = self._condition.name, np.asarray(request.conditions[self._condition.name], np.int64)
        asked = np.concatenate([ids, absent(self._condition, 1)]) if _guided(request) else ids
        texts, place = np.unique(asked, axis=0, return_inverse=True)
        answer = yield Call(TEXT_ENCODER, {"tokens": torch.from_numpy(np.ascontiguousarray(texts))})
        hidden = answer["hidden"].float().cpu().numpy().copy()[place.reshape(-1)]
        found = {**request.conditions, name: hidden[: request.rows]}
        if _guided(request):
            found[null_key(name)] = np.repeat(hidden[-1:], request.rows, axis=0)
        return (yield from inner(replace(request, conditions=found)))

    def network_rows(self, request: Request) -> dict[str, int]:
        """Rows of the text encoder, where all texts differ."""
        return {TEXT_ENCODER: request.rows + int(_guided(request))}


def _guided(request: Request) -> bool:
    return request.parameters.get("guidance_scale", 1.0) != 1.0
