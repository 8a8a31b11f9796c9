"""Symbols in another order than that of the data: requests are put into it, answers are put back.

Everything behind this module sees rows whose flattened entries are the symbols in the order in which the
network meets them, so that "before" and "after" mean the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from serving.families.request import Array, Request
from serving.families.result import Result
from serving.families.rows import Loop, Program, Progress, Streamed, Tensors, Yield

T = TypeVar("T", bound=np.generic)
Places = NDArray[np.int64]

# Arrays whose last axes are those of the data; what else an answer holds has one entry per row.
_GIVEN = ("data", "end", "latents", "observed")
_ANSWERED = ("data", "latents", "log_prob_map", "score_map", "mean", "variance", "entropy")


class Order:
    """``places``: of each symbol in the flattened data, in the order of the chain; ``shape``: of a row."""

    def __init__(self, places: tuple[int, ...], shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._places: Places = np.asarray(places, np.int64)
        self._back: Places = np.argsort(self._places)

    def to_chain(self, values: NDArray[T]) -> NDArray[T]:
        """[..., *shape] as the data lie, to the order of the chain."""
        return self._taken(values, self._places)

    def to_data(self, values: NDArray[T]) -> NDArray[T]:
        """[..., *shape] in the order of the chain, to where the data lie."""
        return self._taken(values, self._back)

    def program(self, request: Request, inner: Callable[[Request], Program]) -> Program:
        """``inner`` on the request in the order of the chain; its answers in that of the data."""
        given = {name: getattr(request, name) for name in _GIVEN}
        changed: dict[str, Any] = {n: self.to_chain(v) for n, v in given.items() if v is not None}
        return self._translated(inner(replace(request, **changed)))

    def _translated(self, program: Program) -> Program:
        try:
            asked = next(program)
            while True:
                asked = program.send((yield self._asked(asked)))
        except StopIteration as end:
            return self._result(end.value)
        finally:
            program.close()

    def _asked(self, asked: Yield) -> Yield:
        """What the program yields, as the data lie where the caller sees it."""
        if isinstance(asked, Loop) and asked.streamed is not None:
            return replace(asked, streamed=_Reordered(asked.streamed, self))
        if isinstance(asked, Progress) and asked.partial is not None:
            return replace(asked, partial=self._result(asked.partial))
        return asked

    def _result(self, result: Result) -> Result:
        known = {field.name for field in fields(result)}
        changed: dict[str, Any] = {}
        for name in known.intersection(_ANSWERED):
            value = getattr(result, name)
            if value is not None:
                changed[name] = self.to_data(value)
        return replace(result, **changed)

    def _taken(self, values: NDArray[T], places: Places) -> NDArray[T]:
        lead = values.shape[: values.ndim - len(self._shape)]
        flat = values.reshape(*lead, -1)
        return np.ascontiguousarray(flat[..., places]).reshape(values.shape)


class _Reordered:
    """Rows of a stream, put back."""

    def __init__(self, inner: Streamed, order: Order) -> None:
        self._inner = inner
        self._order = order

    def data(self, rows: NDArray[np.int64], state: Tensors) -> tuple[Array, NDArray[np.int32] | None]:
        """See ``Streamed``."""
        data, lengths = self._inner.data(rows, state)
        return self._order.to_data(data), lengths
