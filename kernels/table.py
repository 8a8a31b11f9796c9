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
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kernels._compiled import INTEGER, LIBRARY, POINTER

CONDITIONS = 8  # at most

Array = npt.NDArray[Any]
Slots = npt.NDArray[np.int64]
Gather = Callable[[], object]
Advance = Callable[[], int]


def compiled() -> bool:
    """Whether this installation has the compiled form."""
    return LIBRARY is not None


INTEGERS: Final = ("first", "line", "end", "depth", "width", "seed", "row", "words")
FLAGS: Final = ("guided", "masked", "learned", "direct", "special")
NUMBERS: Final = ("rescale", "threshold")
ENTRY: Final = np.dtype(
    [
        *((name, np.int64) for name in INTEGERS),
        *((name, np.bool_) for name in FLAGS),
        *((name, np.float32) for name in NUMBERS),
    ],
    align=True,
)
"""What a table knows of a row besides its state; a row is in one place, so that it comes and goes at once.

``first``, ``line`` and ``end`` index the coefficients: where the row's plan begins, its next line, and where
it ends. ``depth``: how many x0 of earlier lines the plan reads. ``seed``, ``row``, ``words``: whose noise.
``guided``, ``masked``: with an unconditional network row; with given entries. The rest is the table's own.
"""


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
        ("entries", POINTER),
        ("condition", _Condition * CONDITIONS),
    )


@dataclass(frozen=True, eq=False)
class Place:
    """Buffers of some network rows, for one table (``RowTable.place``); ``calls`` by number of rows."""

    x: ctypes.c_void_p
    t: ctypes.c_void_p
    conditions: ctypes.Array[ctypes.c_void_p]
    output: ctypes.c_void_p
    stride: ctypes.c_int64
    integer_time: bool
    kept: object  # what the pointers point at
    calls: dict[int, tuple[Gather, Advance]] = field(default_factory=dict)


class RowTable:
    """Views of a table's arrays [capacity, ...], which must stay where they are; some may come later.

    ``x`` and each of the three ``x0`` are float32 [capacity, elements], ``entries`` ENTRY [capacity].
    ``conditions`` are pairs of values [capacity, ...] and null values of the same type, [1, ...] or one per
    slot, or None.
    """

    def __init__(
        self,
        x: Array,
        x0: Sequence[Array],
        entries: Array,
        conditions: Mapping[str, tuple[Array, Array | None]],
    ) -> None:
        if len(conditions) > CONDITIONS:
            raise ValueError(f"{len(conditions)} conditions; at most {CONDITIONS}")
        self._kept = [x, *x0, entries, conditions]  # what the pointers point at
        self._names = tuple(conditions)
        self._table = _Table(elements=x.shape[1], conditions=len(conditions), x=x.ctypes.data)
        self._table.x0 = (POINTER * 3)(*(older.ctypes.data for older in x0))
        self._table.entries = entries.ctypes.data
        for index, (values, null) in enumerate(conditions.values()):
            row_bytes = values[:1].nbytes
            address = None if null is None else null.ctypes.data
            stride = 0 if null is None or len(null) == 1 else row_bytes
            self._table.condition[index] = _Condition(row_bytes, values.ctypes.data, address, stride)
        self._at = ctypes.addressof(self._table)
        self._lines: Array | None = None
        self._slots = np.zeros(len(x), np.int64)  # of the rows that are bound

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
        LIBRARY.pxserve_begin(self._at, slots.ctypes.data, len(slots), deviation)

    def place(self, inputs: Mapping[str, Array], output: Array) -> Place:
        """Where a network reads ``x`` float32 [network rows, ...], ``t`` float32 or int64 and the conditions,
        and writes ``output`` float32 [network rows, ...].
        """
        conditions = (POINTER * CONDITIONS)(*(inputs[name].ctypes.data for name in self._names))
        return Place(
            POINTER(inputs["x"].ctypes.data),
            POINTER(inputs["t"].ctypes.data),
            conditions,
            POINTER(output.ctypes.data),
            INTEGER(output.strides[0] // output.itemsize),
            inputs["t"].dtype == np.int64,
            (inputs, output),
        )

    def bound(self, slots: Slots, place: Place) -> tuple[Gather, Advance]:
        """Two calls without arguments for these rows, until others are bound or any array moves.

        The first writes the network's inputs: one network row per slot, then, in the same order, one more
        for each guided slot. The second reads its output in that order, does one line of every row, and
        answers how many of them have ended by it; -1 where its output is not finite, and nothing was done.
        """
        count = len(slots)
        self._slots[:count] = slots
        self._table.integer_time = place.integer_time
        calls = place.calls.get(count)
        if calls is None:
            assert LIBRARY is not None
            rows = POINTER(self._at), POINTER(self._slots.ctypes.data), INTEGER(count)
            calls = place.calls[count] = (
                partial(LIBRARY.pxserve_gather, *rows, place.x, place.t, place.conditions),
                partial(LIBRARY.pxserve_advance, *rows, place.output, place.stride),
            )
        return calls
