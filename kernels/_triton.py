"""Triton at arm's length: kernels are declared without importing it, and compiled on first use."""

from __future__ import annotations

import importlib
import inspect
import threading
from collections.abc import Callable
from typing import Any

_building = threading.RLock()


class Kernel:
    """A function in Triton's language that becomes a ``triton.JITFunction`` when it is first needed.

    Its module then sees ``tl`` as ``triton.language``, and each ``Kernel`` that it names as what it became.
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self.function = function
        self.options = options
        self._compiled: Any = None

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        """Return the launcher for ``grid``, as Triton's own kernels do."""
        return self.compiled[grid]

    def __call__(self, *arguments: Any) -> Any:
        """Call from inside another kernel."""
        return self.compiled(*arguments)

    @property
    def compiled(self) -> Any:
        """What ``triton.jit`` makes of it: a ``JITFunction``, or under TRITON_INTERPRET=1 its interpreter."""
        with _building:
            if self._compiled is None:
                self._compiled = self._build()
            return self._compiled

    def _build(self) -> Any:
        triton = importlib.import_module("triton")
        namespace = inspect.unwrap(self.function).__globals__
        namespace["tl"] = importlib.import_module("triton.language")
        built = triton.jit(self.function, **self.options)
        for name, value in list(namespace.items()):
            if isinstance(value, Kernel):
                namespace[name] = built if value is self else value.compiled
        return built


def jit(*, do_not_specialize: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], Kernel]:
    """Declare a kernel; the named arguments never trigger a recompilation for their value or alignment."""
    options = {"do_not_specialize": do_not_specialize} if do_not_specialize else {}
    return lambda function: Kernel(function, options)
