"""What torch computes slowly on a CPU in bfloat16, written so that it is fast, while a network is traced.

Measured on two cores with AVX-512 (docs/findings/bfloat16-cpu.md): together a sixth of a U-Net's run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

SMALL_PIXELS = 1024  # below it, torch's group norm of channels last goes through memory group by group
WIDE_GROUP = 16  # channels that fill its vectors all the same
MOST_SCORES = 2**20  # of a row's attention: 2 MB; more would no longer stay in a cache


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """[.., queries, width] as two products and a softmax: the fused kernel multiplies in small blocks."""
    plain = attn_mask is None and not dropout_p and not is_causal and not enable_gqa
    if not plain or prod((*query.shape[1:-1], key.shape[-2])) > MOST_SCORES:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    scaled = query * (query.shape[-1] ** -0.5 if scale is None else scale)
    return torch.softmax(scaled @ key.transpose(-1, -2), dim=-1) @ value


def group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """[rows, C, places] as an image, which may lie channels last; small images in float32."""
    image = x.unsqueeze(-1) if x.dim() == 3 else x
    small = prod(image.shape[2:]) < SMALL_PIXELS and image.shape[1] < groups * WIDE_GROUP
    if small and image.dtype == torch.bfloat16:
        normed = F.group_norm(image.float(), groups, weight, bias, eps).to(image.dtype)
    else:
        normed = F.group_norm(image, groups, weight, bias, eps)
    return normed.squeeze(-1) if x.dim() == 3 else normed


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """[.., in] as one product: of a transposed image torch would make one per row, and copy the weights."""
    if x.dim() < 3:
        return F.linear(x, weight, bias)
    return F.linear(x.reshape(-1, x.shape[-1]), weight, bias).reshape(*x.shape[:-1], weight.shape[0])


FORMS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    F.scaled_dot_product_attention: attention,
    F.group_norm: group_norm,
    F.linear: linear,
}


class CpuForms(TorchFunctionMode):
    """Inside it the functions of ``FORMS`` are computed as written here."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """``func`` or its form."""
        form: Callable[..., Any] = FORMS.get(func, func)
        return form(*args, **(kwargs or {}))
