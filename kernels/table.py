"""denoise_step over the rows of a table on CPU: one call gathers the network's inputs, one advances the rows.

The operations of :mod:`kernels.denoise` in their order, compiled from kernels/cpu/denoise.c, hence the same
bits; state is updated in place, and noise is drawn where it is used. Bytes per element and row, float32: 8 to
gather, 16 to advance, 4 more with guidance, 8 per history slot, 5 with known and observed. Measured on one
shared core (AVX2) for 64 rows of 64 elements, in a tight loop: 4 us to gather, 6 us to advance, 20 us with
noise; one row 3 and 4 us.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels._compiled import INTEGER, LIBRARY, POINTER

CONDITIONS = 8  # at most

Array = npt.NDArray[Any]
Slots = npt.NDArray[np.int64]
Step = Callable[[], object]


def compiled() -> bool:
    """Whether this installation has the compiled form."""
    return LIBRARY is not None


@dataclass(frozen=True)
class Columns:
    """Arrays of one entry per slot: what a table knows of its rows besides their state.

    ``first`` and ``line`` int64 index ``lines``: where the row's plan begins, and its next line. ``depth``
    int64: how many x0 of earlier lines the plan reads. ``seed``, ``row``, ``words`` int64: whose noise.
    ``guided``, ``masked`` bool: with an unconditional network row; with given entries.
    """

    first: Slots
    line: Slots
    depth: Slots
    seed: Slots
    row: Slots
    words: Slots
    guided: npt.NDArray[np.bool_]
    masked: npt.NDArray[np.bool_]


class _Condition(ctypes.Structure):
    _fields_ = (("row_bytes", INTEGER), ("values", POINTER), ("null", POINTER), ("null_bytes", INTEGER))


class _Table(ctypes.Structure):
    _fields_ = (
        ("elements", INTEGER),
        ("conditions", INTEGER),
        ("integer_time", INTEGER),
        ("x", POINTER),
        ("x0", POINTER * 3),
        ("known", POINTER),
        ("observed", POINTER),
        ("lines", POINTER),
        *((name, POINTER) for name in ("first", "depth", "line", "seed", "row", "words", "guided", "masked")),
        ("condition", _Condition * CONDITIONS),
    )


class RowTable:
    """Views of a table's arrays [capacity, ...], which must stay where they are; some may come later.

    ``x`` and each of the three ``x0`` are float32 [capacity, elements]. ``conditions`` are pairs of values
    [capacity, ...] and null values of the same type, [1, ...] or one per slot, or None.
    """

    def __init__(
        self,
        x: Array,
        x0: Sequence[Array],
        columns: Columns,
        conditions: Mapping[str, tuple[Array, Array | None]],
    ) -> None:
        if len(conditions) > CONDITIONS:
            raise ValueError(f"{len(conditions)} conditions; at most {CONDITIONS}")
        self._kept = [x, *x0, columns, conditions]  # what the pointers point at
        self._names = tuple(conditions)
        self._table = _Table(elements=x.shape[1], conditions=len(conditions), x=x.ctypes.data)
        self._table.x0 = (POINTER * 3)(*(older.ctypes.data for older in x0))
        for name, column in vars(columns).items():
            setattr(self._table, name, column.ctypes.data)
        for index, (values, null) in enumerate(conditions.values()):
            row_bytes = values[:1].nbytes
            address = None if null is None else null.ctypes.data
            stride = 0 if null is None or len(null) == 1 else row_bytes
            self._table.condition[index] = _Condition(row_bytes, values.ctypes.data, address, stride)
        self._at = ctypes.addressof(self._table)
        self._lines: Array | None = None
        self._slots: tuple[Slots | None, int] = (None, 0)
        self._inputs: tuple[Mapping[str, Array] | None, Any] = (None, None)

    def read_lines(self, lines: Array) -> None:
        """Coefficients float32 [size, 17] of all plans in use."""
        if lines is not self._lines:
            self._lines, self._table.lines = lines, lines.ctypes.data

    def read_given(self, known: Array, observed: npt.NDArray[np.bool_]) -> None:
        """Given entries and where they are, [capacity, elements]."""
        self._kept += [known, observed]
        self._table.known, self._table.observed = known.ctypes.data, observed.ctypes.data

    def begin(self, slots: Slots, deviation: float) -> None:
        """Draw the initial state of the rows: stream 0, line 0, times ``deviation``."""
        assert LIBRARY is not None
        LIBRARY.pxserve_begin(self._at, self._address(slots), len(slots), deviation)

    def gather(self, slots: Slots, inputs: Mapping[str, Array]) -> None:
        """Write ``x`` float32 [network rows, ...], ``t`` float32 or int64, and the conditions.

        First one network row per slot, then, in the same order, one more for each guided slot.
        """
        assert LIBRARY is not None
        x, t, conditions = self._destinations(inputs)
        LIBRARY.pxserve_gather(self._at, self._address(slots), len(slots), x, t, conditions)

    def advance(self, slots: Slots, output: Array) -> None:
        """One line of every row from ``output`` float32 [network rows, ...], in the order of ``gather``."""
        assert LIBRARY is not None
        stride = output.strides[0] // output.itemsize
        LIBRARY.pxserve_advance(self._at, self._address(slots), len(slots), output.ctypes.data, stride)

    def bound(self, slots: Slots, inputs: Mapping[str, Array], output: Array) -> tuple[Step, Step]:
        """``gather`` and ``advance`` of these rows in these buffers, with nothing left to find out.

        Valid until rows come or go, or any array moves.
        """
        assert LIBRARY is not None
        x, t, conditions = self._destinations(inputs)
        rows = POINTER(self._at), POINTER(slots.ctypes.data), INTEGER(len(slots))
        stride = INTEGER(output.strides[0] // output.itemsize)
        self._bound = slots, inputs, output  # what the pointers point at
        return (
            partial(LIBRARY.pxserve_gather, *rows, POINTER(x), POINTER(t), conditions),
            partial(LIBRARY.pxserve_advance, *rows, POINTER(output.ctypes.data), stride),
        )

    def _address(self, slots: Slots) -> int:
        """Found once for a set of slots that steps again and again."""
        known, address = self._slots
        if known is not slots:
            address = slots.ctypes.data
            self._slots = (slots, address)
        return address

    def _destinations(self, inputs: Mapping[str, Array]) -> tuple[int, int, Any]:
        known, found = self._inputs
        if known is not inputs:
            self._table.integer_time = int(inputs["t"].dtype == np.int64)
            conditions = (POINTER * CONDITIONS)(*(inputs[name].ctypes.data for name in self._names))
            found = (inputs["x"].ctypes.data, inputs["t"].ctypes.data, conditions)
            self._inputs = (inputs, found)
        return found  # type: ignore[no-any-return]
