"""Blocks of diffusers without their branches on the number of rows, while a graph is written.

Upsample2D and ResnetBlock2D rearrange memory from 64 rows on, which changes no value, but which
torch.export takes for a limit on the batch. Verification runs the blocks as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional

from export.diffusers.weights import library


@contextmanager
def any_rows() -> Iterator[None]:
    """Replaces the branching blocks while torch.export runs; does nothing otherwise."""
    if not torch.compiler.is_exporting():
        yield
        return
    upsample = library("diffusers.models.upsampling").Upsample2D
    block = library("diffusers.models.resnet").ResnetBlock2D
    with (
        mock.patch.object(upsample, "forward", _upsampled),
        mock.patch.object(block, "forward", _residual(block.forward)),
    ):
        yield


def _upsampled(self: Any, x: Tensor, output_size: Any = None, *_: Any, **__: Any) -> Tensor:
    """Upsample2D.forward."""
    if self.norm is not None:
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    if self.use_conv_transpose:
        transposed: Tensor = self.conv(x)
        return transposed
    if self.interpolate:
        scale = None if output_size is not None else 2.0
        x = functional.interpolate(x, size=output_size, scale_factor=scale, mode="nearest")
    if not self.use_conv:
        return x
    convolved: Tensor = self.conv(x) if self.name == "conv" else self.Conv2d_0(x)
    return convolved


def _residual(original: Any) -> Any:
    """ResnetBlock2D.forward; blocks that do not upsample have no branch, and keep ``original``."""

    def forward(self: Any, x: Tensor, temb: Tensor | None, *rest: Any, **named: Any) -> Tensor:
        if self.upsample is None:
            kept: Tensor = original(self, x, temb, *rest, **named)
            return kept
        h = self.conv1(self.upsample(self.nonlinearity(self.norm1(x))))
        x = self.upsample(x)
        if self.time_emb_proj is not None:
            temb = self.time_emb_proj(temb if self.skip_time_act else self.nonlinearity(temb))[
                :, :, None, None
            ]
        if self.time_embedding_norm == "scale_shift":
            assert temb is not None
            scale, shift = torch.chunk(temb, 2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h if temb is None else h + temb)
        h = self.conv2(self.nonlinearity(h))
        x = x if self.conv_shortcut is None else self.conv_shortcut(x)
        found: Tensor = (x + h) / self.output_scale_factor
        return found

    return forward
