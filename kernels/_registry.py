"""Where kernels become operators: ``torch.ops.pxserve.NAME``.

On CPU an operator runs its torch reference, on CUDA its Triton launcher. ``Library.define`` and ``impl`` cost
half of what ``torch.library.custom_op`` costs per call, and such operators can be scripted. A process that
loads a graph with one inside must import its module here first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch

NAMESPACE: Final = "pxserve"
_library: Final[Any] = torch.library.Library(NAMESPACE, "DEF")  # type: ignore[no-untyped-call]


def register(
    schema: str, reference: Callable[..., Any], launcher: Callable[..., Any], fake: Callable[..., Any]
) -> Any:
    """Define the operator of ``schema`` and return its default overload, its cheapest handle."""
    name = schema.split("(", 1)[0]
    _library.define(schema)
    _library.impl(name, reference, "CPU")
    _library.impl(name, launcher, "CUDA")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_library)
    return getattr(getattr(torch.ops, NAMESPACE), name).default
