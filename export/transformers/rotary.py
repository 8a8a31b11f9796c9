"""Rotary tables as the library itself computes them, so that every kind of scaling is exact."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from export.graph.decoder import Rotary
from export.transformers.refusal import unsupported


def rotary(config: Any, module: str, name: str, max_length: int) -> Rotary:
    """Tables [max_length, rotated / 2] of the class ``name`` in transformers' ``module``.

    Refuses kinds of scaling whose angles depend on how long a row is, within ``max_length``.
    """
    _check_static(config, max_length)
    layer: Any = getattr(import_module(f"transformers.models.{module}"), name)(config=config)
    with torch.no_grad():
        cosines, sines = layer(torch.zeros(1, max_length, 1), torch.arange(max_length)[None])
    half = cosines.shape[-1] // 2
    return Rotary(cosines[0, :, :half].contiguous().numpy(), sines[0, :, :half].contiguous().numpy())


def _check_static(config: Any, max_length: int) -> None:
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = found.get("rope_type", found.get("type", "default"))
    original = found.get("original_max_position_embeddings") or config.max_position_embeddings
    if kind in ("dynamic", "longrope") and max_length > original:
        raise unsupported(
            "config.json",
            f"rope_type {kind!r} changes all angles once a row passes {original} tokens",
            f"Give --max-length {original} or less, up to which it is exact",
        )
    if kind not in ("default", "linear", "llama3", "yarn", "dynamic", "longrope"):
        raise unsupported(
            "config.json",
            f"rope_type {kind!r}",
            "Supported: default, linear, llama3, yarn; dynamic and longrope within the original length",
        )
