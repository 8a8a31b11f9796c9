"""Operators that TorchScript graphs may call: pxserve's own kernels, where they are installed."""

from __future__ import annotations

from importlib import import_module


def register_operators() -> bool:
    """Make ``pxserve::...`` known to torch; false where the kernels are not installed.

    They come with the server: an export of its own needs them only for decoders in TorchScript.
    """
    try:
        import_module("kernels.attention")
        import_module("kernels.logprobs")
    except ImportError:
        return False
    return True
