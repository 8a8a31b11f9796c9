"""What several architectures share: settings of a configuration, norms, activations, the output layer."""

from __future__ import annotations

from typing import Any

import torch

from export.graph.decoder import Activation, Linear, Norm
from export.transformers.refusal import unsupported
from export.transformers.weights import Weights

_ACTIVATIONS: dict[str, tuple[Activation, str]] = {
    "gelu": ("gelu", "none"),
    "gelu_python": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_fast": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "gelu_accurate": ("gelu", "tanh"),
    "quick_gelu": ("quick_gelu", "none"),
    "relu": ("relu", "none"),
    "silu": ("silu", "none"),
    "swish": ("silu", "none"),
}


def only(config: Any, where: str, **allowed: object) -> None:
    """Refuse a configuration in which a setting has another value than the one that can be written."""
    for name, value in allowed.items():
        found = getattr(config, name, value)
        if found != value and not (value in (None, False) and not found):
            raise unsupported(
                where,
                f"config.json: {name} is {found!r}",
                f"Only {name} = {value!r} can be written exactly",
            )


def activation(name: str, where: str) -> tuple[Activation, str]:
    """An activation of transformers' list, and the approximation of its GELU."""
    if name not in _ACTIVATIONS:
        raise unsupported(where, f"the activation {name!r}", f"Supported: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def layer_norm(weights: Weights, name: str, width: int, epsilon: float) -> Norm:
    """torch's LayerNorm."""
    return Norm(weights.take(f"{name}.weight", width), weights.take(f"{name}.bias", width), epsilon)


def rms_norm(weights: Weights, name: str, width: int, epsilon: float, offset: float = 0.0) -> Norm:
    """x / rms(x) * (offset + weight)."""

    def change(value: torch.Tensor) -> torch.Tensor:
        return offset + value.float() if offset else value

    return Norm(weights.take(f"{name}.weight", width, change=change), None, epsilon)


def head(config: Any, weights: Weights, name: str, width: int, *, bias: bool = False) -> Linear | None:
    """The output layer; None where it is the token embedding."""
    if getattr(config, "tie_word_embeddings", False) or f"{name}.weight" not in weights:
        if not getattr(config, "tie_word_embeddings", False):
            weights.take(f"{name}.weight", config.vocab_size, width)  # refuses: it is missing
        if f"{name}.weight" in weights:
            weights.take(f"{name}.weight", config.vocab_size, width)  # the same numbers again
        if not bias:
            return None
    return weights.linear(name, width, config.vocab_size, bias=bias)
