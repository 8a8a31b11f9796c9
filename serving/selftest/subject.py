"""The model under test: requests at its defaults, or cheaper, through whatever answers requests."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from export.package.schema import ModelSpec
from serving.errors import FailedPrecondition
from serving.families.absent import absent
from serving.families.capability import Capability, Method
from serving.families.request import Array, Operation, Request, Value
from serving.families.result import Reconstructed, Result, Sampled

Ask = Callable[[Request], Awaitable[Result]]

BUDGET_S = 2.0  # of one statistical check, by the measured seconds per row
MOST_ROWS, FEWEST_ROWS = 64, 16
CHEAP: Mapping[str, int] = {
    "steps": 10, "particles": 8, "sweeps": 4, "resamplings": 2, "jump_length": 2, "importance_samples": 16,
}  # fmt: skip
PROPORTIONAL = ("steps", "particles", "sweeps", "resamplings")  # parameters that multiply the cost
NEW_SYMBOLS = 32  # of rows of variable length


@dataclass(frozen=True)
class Rows:
    """Rows of data [rows, *shape], their lengths where they differ, and the first one's number."""

    data: Array
    lengths: NDArray[np.int32] | None = None
    first_row: int = 0

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, part: slice) -> Rows:
        """Some of them, padded no further than on their own."""
        first = self.first_row + (part.start or 0)
        if self.lengths is None:
            return Rows(self.data[part], None, first)
        lengths = self.lengths[part]
        return Rows(self.data[part, : int(lengths.max(initial=0))], lengths, first)


@dataclass(frozen=True)
class Subject:
    """One loaded model. ``bitwise``: its rows are bit for bit the same in every batch, as it was measured."""

    spec: ModelSpec
    capabilities: tuple[Capability, ...]
    ask: Ask
    seed: int
    bitwise: bool = True
    most_rows: int = MOST_ROWS
    _drawn: dict[tuple[int, int], Rows] = field(default_factory=dict)

    def capability(self, operation: Operation) -> Capability:
        """What the model says of an operation."""
        return next((c for c in self.capabilities if c.operation is operation), Capability(operation))

    def method(self, operation: Operation, name: str | None = None) -> Method | None:
        """A method (the default one without a name), or None where there is none."""
        found = self.capability(operation)
        if not found.supported:
            return None
        if name is None:
            return found.default
        return next((m for m in found.methods if m.name == name), None)

    def affordable(self, method: Method) -> int:
        """Rows that a statistical check may ask for: a power of two; 0 where the fewest cost too much."""
        within = BUDGET_S / max(method.row_seconds, 1e-6)
        rows = min(MOST_ROWS, self.most_rows, 1 << int(math.log2(max(within, 1.0))))
        if rows < FEWEST_ROWS and FEWEST_ROWS * method.row_seconds > 4 * BUDGET_S:
            return 0
        return max(rows, FEWEST_ROWS)

    def request(self, operation: Operation, method: Method, rows: int, first_row: int = 0) -> Request:
        """A request without data, at the method's defaults."""
        defaults = {p.name: p.default for p in method.parameters if p.default is not None}
        named = frozenset(c.name for c in self.spec.conditions if c.null_value is None)
        conditions = self._conditions(np.arange(first_row, first_row + rows))
        return Request(
            operation, method.name, defaults, self.seed, first_row, rows,
            conditions=conditions, given_conditions=named,
        )  # fmt: skip

    async def about(
        self, operation: Operation, method: Method, rows: Rows, more: Mapping[str, Value] | None = None
    ) -> Result:
        """Ask about rows."""
        request = self.request(operation, method, len(rows), rows.first_row)
        parameters = {**request.parameters, **(more or {})}
        return await self.ask(replace(request, data=rows.data, lengths=rows.lengths, parameters=parameters))

    async def rows(self, n: int, first_row: int = 0, *, quick: bool = False, seed_offset: int = 0) -> Rows:
        """Samples (of few steps where ``quick``); reconstructed noise of a model that has none.

        Draws at the defaults are kept: checks share them.
        """
        key = (n, first_row)
        if not quick and not seed_offset and key in self._drawn:
            return self._drawn[key]
        request = self._row_request(n, first_row)
        parameters = cheaper(request.parameters) if quick else request.parameters
        seed = (self.seed + seed_offset) % 2**64
        result = await self.ask(replace(request, parameters=parameters, seed=seed))
        assert isinstance(result, Sampled | Reconstructed)
        rows = Rows(result.data, result.lengths, first_row)
        if not quick and not seed_offset:
            self._drawn[key] = rows
        return rows

    async def drawn(self, n: int) -> Sampled:
        """Samples with all that is said of them."""
        result = await self.ask(self._row_request(n, 0))
        assert isinstance(result, Sampled)
        return result

    async def sampled(self, at_most: int = MOST_ROWS) -> Rows:
        """The first of as many samples as are affordable; checks share them."""
        count = self.affordable(self._sampler()) or FEWEST_ROWS
        return (await self.rows(count))[slice(0, min(at_most, count))]

    def _sampler(self) -> Method:
        found = self.method(Operation.SAMPLE) or self.method(Operation.RECONSTRUCT)
        if found is None:
            raise FailedPrecondition("neither Sample nor Reconstruct gives rows to test this model with")
        return found

    def _row_request(self, n: int, first_row: int) -> Request:
        method = self._sampler()
        if self.method(Operation.SAMPLE) is None:
            noise = self.noise(first_row + n)[first_row:]
            return replace(self.request(Operation.RECONSTRUCT, method, n, first_row), data=noise)
        request = self.request(Operation.SAMPLE, method, n, first_row)
        if all(p.name != "max_new_tokens" for p in method.parameters):
            return request
        return replace(request, parameters={**request.parameters, "max_new_tokens": NEW_SYMBOLS})

    def noise(self, rows: int) -> Array:
        """Rows that no model drew: uniform levels, or standard normals."""
        space = self.spec.data
        generator = np.random.Generator(np.random.Philox(self.seed))
        shape = (rows, *(space.max_length if size == -1 else size for size in space.shape))
        if space.levels:
            return generator.integers(0, space.levels, shape).astype(space.dtype)
        return generator.standard_normal(shape).astype(space.dtype)

    def _conditions(self, rows: NDArray[np.int64]) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for condition in self.spec.conditions:
            found[condition.name] = absent(condition, len(rows))
            if condition.kind == "class" and condition.null_value is None:
                found[condition.name] = rows % condition.classes
        return found


def cheaper(parameters: Mapping[str, Value]) -> dict[str, Value]:
    """Fewer steps, particles and sweeps: for comparisons that hold whatever their number is."""
    whole = {name: value for name, value in parameters.items() if name in CHEAP and isinstance(value, int)}
    less: dict[str, Value] = {name: min(value, CHEAP[name]) for name, value in whole.items()}
    return {**parameters, **less}


def cheap_seconds(method: Method) -> float:
    """Seconds per row with the parameters of ``cheaper``, from those measured at the defaults."""
    share = 1.0
    for parameter in method.parameters:
        if parameter.name in PROPORTIONAL and isinstance(parameter.default, int):
            share *= min(parameter.default, CHEAP[parameter.name]) / parameter.default
    return method.row_seconds * share
