"""Images as networks hold them: channels first, channels last, or flat."""

from __future__ import annotations

import math
from collections.abc import Sequence

from export.adapt.steps import Reshape, Step, Transpose


def to_layout(layout: str, shape: Sequence[int]) -> tuple[Step, ...]:
    """Steps from [rows, C, H, W] (any axes, the first one is the channel) to ``layout``."""
    if layout == "flat":
        return (Reshape((math.prod(shape),)),)
    if layout == "channels_last" and len(shape) > 1:
        return (Transpose((0, *range(2, len(shape) + 1), 1)),)
    return ()


def from_layout(layout: str, shape: Sequence[int]) -> tuple[Step, ...]:
    """Steps back to [rows, C, H, W]."""
    if layout == "flat":
        return (Reshape(tuple(shape)),)
    if layout == "channels_last" and len(shape) > 1:
        return (Transpose((0, len(shape), *range(1, len(shape)))),)
    return ()


def in_layout(layout: str, shape: Sequence[int]) -> tuple[int, ...]:
    """The row shape there."""
    if layout == "flat":
        return (math.prod(shape),)
    return (*shape[1:], shape[0]) if layout == "channels_last" else tuple(shape)
