"""Loops in C for the CPU, built from kernels/cpu at installation; None where there was no compiler.

Whoever uses it has another way to the same bits. Calls keep the interpreter's lock: they take microseconds.
"""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from typing import Final

POINTER: Final = ctypes.c_void_p
INTEGER: Final = ctypes.c_int64

_DRAW: Final = (POINTER, POINTER, POINTER, POINTER, INTEGER, INTEGER, INTEGER, POINTER)
_FUNCTIONS: Final = {
    "pxserve_words": _DRAW,
    "pxserve_uniforms": _DRAW,
    "pxserve_normals": _DRAW,
    "pxserve_begin": (POINTER, POINTER, INTEGER, ctypes.c_float),
    "pxserve_gather": (POINTER, POINTER, INTEGER, POINTER, POINTER, POINTER),
    "pxserve_advance": (POINTER, POINTER, INTEGER, POINTER, INTEGER),
    "pxserve_finite": (POINTER, INTEGER),
}


def _load() -> ctypes.PyDLL | None:
    spec = find_spec("kernels._cpu")
    if spec is None or spec.origin is None:
        return None
    library = ctypes.PyDLL(spec.origin)
    for name, arguments in _FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    for answering in (library.pxserve_advance, library.pxserve_finite):
        answering.restype = INTEGER
    return library


LIBRARY: Final = _load()
