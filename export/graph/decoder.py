"""What a decoder-only transformer is made of, whatever library its weights come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[Any]
Activation = Literal["gelu", "relu", "silu", "quick_gelu"]


@dataclass(frozen=True)
class Stored:
    """A weight that is read from its file only when it is written, so that one of them is in memory."""

    shape: tuple[int, ...]
    read: Callable[[], torch.Tensor]


Weight = Array | Stored


def tensor_of(weight: Weight) -> torch.Tensor:
    """The weight in memory, in whatever dtype it is stored."""
    return weight.read() if isinstance(weight, Stored) else torch.from_numpy(np.ascontiguousarray(weight))


@dataclass(frozen=True)
class Norm:
    """LayerNorm, or RMSNorm where there is no bias."""

    weight: Weight
    bias: Weight | None
    epsilon: float = 1e-5


@dataclass(frozen=True)
class Linear:
    """x @ weight + bias; ``weight`` [in, out] (torch's nn.Linear transposed)."""

    weight: Weight
    bias: Weight | None = None


@dataclass(frozen=True)
class Mlp:
    """down(act(up(x))), or with a ``gate`` down(act(gate(x)) * up(x)) (Shazeer 2020).

    ``activation``: GELU without a gate and SiLU with one where it is None; ``approximate``: tanh or none,
    of GELU; quick_gelu is x * sigmoid(1.702 x) (Hendrycks and Gimpel 2016, section 2).
    """

    up: Linear
    down: Linear
    gate: Linear | None = None
    approximate: str = "tanh"
    activation: Activation | None = None

    @property
    def act(self) -> Activation:
        """The activation by name."""
        return self.activation or ("gelu" if self.gate is None else "silu")


@dataclass(frozen=True)
class DecoderBlock:
    """Pre-norm attention and perceptron; ``qkv`` packs (heads + 2 kv_heads) * head_dim channels.

    ``query_norm`` and ``key_norm`` act on each head before rotation. ``scale`` of the scores: None is
    1 / sqrt(head_dim). In a ``parallel`` block both parts read the block's input, the perceptron through
    ``norm_mlp``, or through ``norm_attention`` where that is None.
    """

    norm_attention: Norm
    qkv: Linear
    project: Linear
    norm_mlp: Norm | None
    mlp: Mlp
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    scale: float | None = None
    parallel: bool = False


@dataclass(frozen=True)
class Rotary:
    """Cosines and sines [max_length, rotated / 2] (Su et al. 2021), halves rotated, not pairs.

    The first ``rotated`` channels of each head turn; the others stay.
    """

    cosines: Array
    sines: Array


@dataclass(frozen=True)
class Decoder:
    """The whole network; learned positions, rotary ones, or both absent.

    ``head`` None: the token embedding, transposed. ``embedding_scale`` multiplies embedded tokens.
    """

    token: Weight  # [inputs, width]
    blocks: Sequence[DecoderBlock]
    norm_out: Norm
    head: Linear | None
    heads: int
    kv_heads: int
    head_dim: int
    max_length: int
    position: Weight | None = None  # [max_length, width]
    rotary: Rotary | None = None
    embedding_scale: float | None = None

    @property
    def vocabulary(self) -> int:
        """How many tokens may come out."""
        return self.token.shape[0] if self.head is None else self.head.weight.shape[1]
