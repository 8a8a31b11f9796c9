"""TorchScript files of the reference models: code that the server may run without being told to."""

from __future__ import annotations

TORCHSCRIPT_SHA256: frozenset[str] = frozenset()
