"""Scripts as methods of the two clients, with the same arguments, signature and docstring."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from pxserve.options import check_names, signature
from pxserve.script import Script, Stream

P = ParamSpec("P")
R = TypeVar("R")


class Blocking(Protocol):
    """Runs scripts, blocking."""

    def _run_script(self, script: Script[R]) -> R:
        """Make a script's calls and return its answer."""

    def _open_stream(self, script: Script[Stream[R]]) -> Generator[R, None, None]:
        """Iterate over a stream's events."""


class Awaiting(Protocol):
    """Runs scripts, awaiting."""

    async def _run_script(self, script: Script[R]) -> R:
        """Make a script's calls and return its answer."""

    def _open_stream(self, script: Script[Stream[R]]) -> AsyncGenerator[R, None]:
        """Iterate over a stream's events."""


def unary(build: Callable[P, Script[R]]) -> Callable[Concatenate[Blocking, P], R]:
    """A method that runs ``build``'s script."""

    def method(self: Blocking, /, *args: P.args, **kwargs: P.kwargs) -> R:
        check_names(build, kwargs)
        return self._run_script(build(*args, **kwargs))

    return _like(method, build)


def unary_async(build: Callable[P, Script[R]]) -> Callable[Concatenate[Awaiting, P], Coroutine[Any, Any, R]]:
    """A coroutine method that runs ``build``'s script; cancelling its task cancels the call."""

    async def method(self: Awaiting, /, *args: P.args, **kwargs: P.kwargs) -> R:
        check_names(build, kwargs)
        return await self._run_script(build(*args, **kwargs))

    return _like(method, build)


def stream(
    build: Callable[P, Script[Stream[R]]],
) -> Callable[Concatenate[Blocking, P], Generator[R, None, None]]:
    """A method that iterates over the events of ``build``'s stream; closing the iterator cancels it."""

    def method(self: Blocking, /, *args: P.args, **kwargs: P.kwargs) -> Generator[R, None, None]:
        check_names(build, kwargs)
        return self._open_stream(build(*args, **kwargs))

    return _like(method, build)


def stream_async(
    build: Callable[P, Script[Stream[R]]],
) -> Callable[Concatenate[Awaiting, P], AsyncGenerator[R, None]]:
    """A method that iterates asynchronously over the events of ``build``'s stream."""

    def method(self: Awaiting, /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[R, None]:
        check_names(build, kwargs)
        return self._open_stream(build(*args, **kwargs))

    return _like(method, build)


F = TypeVar("F", bound=Callable[..., Any])


def _like(method: F, build: Callable[..., Any]) -> F:
    functools.update_wrapper(method, build)
    plain = signature(build)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    shown = [own, *plain.parameters.values()]
    method.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    return method
