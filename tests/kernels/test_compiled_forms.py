"""What is compiled for the CPU gives the bits of the references: noise, and the rows of a table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from kernels import _philox_cpu
from kernels.denoise import denoise_step
from kernels.finite import all_finite
from kernels.table import ENTRY, Array, RowTable, compiled

pytestmark = pytest.mark.skipif(not compiled(), reason="this installation had no C compiler")

CAPACITY, LINES, WIDTH = 9, 40, 17
TIME, SCALE = 14, 15
SIZES = (1, 7, 64, 300, 1025, 3072)


@pytest.mark.parametrize("kind", ["words", "uniform", "normal"])
@pytest.mark.parametrize("n", SIZES)
def test_noise_has_the_bits_of_numpy(kind: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(n)
    seed, row = (torch.from_numpy(rng.integers(-(2**63), 2**63 - 1, 5)) for _ in range(2))
    line = torch.from_numpy(rng.integers(0, 2**32, (5, 3)))
    stream = torch.from_numpy(rng.integers(0, 2**20, 5))
    draw = getattr(_philox_cpu, f"{kind}_reference")
    found = draw(seed, row, line, stream, n)
    monkeypatch.setattr(_philox_cpu, "LIBRARY", None)
    assert torch.equal(found, draw(seed, row, line, stream, n))


class Rows:
    """A table of random rows, some guided, masked, with history and noise, and the same for denoise_step."""

    def __init__(self, n: int, integer_time: bool = False) -> None:
        self.n, self.rng = n, np.random.default_rng(n)
        self.x, self.known = self._normals(CAPACITY, n), self._normals(CAPACITY, n)
        self.x0 = [self._normals(CAPACITY, n) for _ in range(3)]
        self.observed = self.rng.random((CAPACITY, n)) < 0.4
        self.lines = self._lines(integer_time)
        self.entries = self._entries()
        self.labels = self.rng.integers(0, 9, CAPACITY)
        self.vectors = self._normals(CAPACITY, 3)
        conditions: dict[str, tuple[Array, Array | None]] = {
            "label": (self.labels, np.array([99])),
            "own": (self.labels + 100, self.labels + 200),
            "vector": (self.vectors, None),
        }
        self.table = RowTable(self.x, self.x0, self.entries, conditions)
        self.table.read_lines(self.lines)
        self.table.read_given(self.known, self.observed)

    def _entries(self) -> Array:
        entries, rng = np.zeros(CAPACITY, ENTRY), self.rng
        entries["first"] = rng.integers(0, LINES // 2, CAPACITY)
        entries["line"] = entries["first"] + rng.integers(0, LINES // 2, CAPACITY)
        entries["end"] = entries["line"] + rng.integers(1, 3, CAPACITY)
        entries["depth"], entries["row"] = rng.integers(0, 4, CAPACITY), rng.integers(0, 2**32, CAPACITY)
        entries["seed"] = rng.integers(-(2**63), 2**63 - 1, CAPACITY)
        entries["words"] = 16 * rng.integers(0, 9, CAPACITY)
        entries["guided"], entries["masked"] = (rng.random(CAPACITY) < 0.5 for _ in range(2))
        return entries

    def _normals(self, *shape: int) -> NDArray[np.float32]:
        return self.rng.standard_normal(shape).astype(np.float32)

    def _lines(self, integer_time: bool) -> NDArray[np.float32]:
        """Random coefficients; a third of them are zero, and bounds may be absent."""
        lines = np.where(self.rng.random((LINES, WIDTH)) < 0.33, 0, self._normals(LINES, WIDTH))
        bound = np.where(self.rng.random(LINES) < 0.5, np.inf, 0.7)
        lines[:, 3], lines[:, 4] = -bound, bound
        lines[:, TIME] = np.rint(100 * lines[:, TIME]) if integer_time else lines[:, TIME]
        return lines.astype(np.float32)

    def inputs(self, rows: int, integer_time: bool) -> dict[str, Array]:
        """Buffers of a network."""
        t = np.zeros(rows, np.int64 if integer_time else np.float32)
        labels = {name: np.zeros(rows, np.int64) for name in ("label", "own")}
        return {
            "x": np.zeros((rows, self.n), np.float32),
            "t": t,
            "vector": np.zeros((rows, 3), np.float32),
        } | labels

    def bound(
        self, slots: NDArray[np.int64], inputs: dict[str, Array], output: Array
    ) -> tuple[Callable[[], object], Callable[[], int]]:
        """Other rows in these buffers before: what is bound last holds."""
        place = self.table.place(inputs, output)
        self.table.bound(slots[::-1], place)
        return self.table.bound(slots, place)

    def expected(self, slots: NDArray[np.int64], output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        entries = self.entries[slots]
        coefficients = torch.from_numpy(self.lines[entries["line"]])
        guided, masked = entries["guided"], entries["masked"]
        unguided = ~(np.arange(3) < entries["depth"][:, None])
        coefficients[:, 7:10][torch.from_numpy(unguided)] = 0.0
        coefficients[:, 11:13][torch.from_numpy(~masked)] = 0.0
        twin = np.where(guided, len(slots) - 1 + np.cumsum(guided), np.arange(len(slots)))
        seed, row, line = (
            torch.from_numpy(np.ascontiguousarray(value))
            for value in (entries["seed"], entries["row"], entries["line"] - entries["first"])
        )
        return denoise_step(
            torch.from_numpy(self.x[slots]), output, coefficients[:, :14],
            unconditional_row=torch.from_numpy(twin),
            history=torch.from_numpy(np.stack([older[slots] for older in self.x0], axis=1)),
            known=torch.from_numpy(self.known[slots]), observed=torch.from_numpy(self.observed[slots]),
            seed=seed, row=row, line=line, particle=torch.from_numpy(entries["words"] // 16),
        )  # fmt: skip


@pytest.mark.parametrize("n", SIZES)
def test_rows_advance_with_the_bits_of_denoise_step(n: int) -> None:
    rows = Rows(n)
    slots = np.array([7, 0, 3, 4, 8])
    network_rows = len(slots) + int(rows.entries["guided"][slots].sum())
    output = torch.from_numpy(rows._normals(network_rows, n + 5))[:, :n]  # wider, as with a learned variance
    x, x0 = rows.expected(slots, output.contiguous())
    before = [older.copy() for older in (rows.x, *rows.x0)]
    line = rows.entries["line"].copy()
    _, advance = rows.bound(slots, rows.inputs(network_rows, False), output.numpy())
    assert advance() == int((rows.entries["end"][slots] == line[slots] + 1).sum())
    assert torch.equal(torch.from_numpy(rows.x[slots]), x)
    assert torch.equal(torch.from_numpy(rows.x0[0][slots]), x0)
    deep = slots[rows.entries["depth"][slots] >= 2]
    np.testing.assert_array_equal(rows.x0[1][deep], before[1][deep])
    others = np.setdiff1d(np.arange(CAPACITY), slots)
    np.testing.assert_array_equal(rows.x[others], before[0][others])
    np.testing.assert_array_equal(rows.entries["line"], line + np.isin(np.arange(CAPACITY), slots))


@pytest.mark.parametrize("place", [0, -1])  # of the first row, or of the last twin
def test_rows_do_not_advance_from_an_output_that_is_not_finite(place: int) -> None:
    rows, slots = Rows(64), np.arange(CAPACITY)
    network_rows = CAPACITY + int(rows.entries["guided"].sum())
    output = rows._normals(network_rows, 64)
    output.reshape(-1)[place] = np.nan
    before = rows.x.copy(), rows.entries.copy()
    _, advance = rows.bound(slots, rows.inputs(network_rows, False), output)
    assert advance() == -1
    np.testing.assert_array_equal(rows.x, before[0])
    np.testing.assert_array_equal(rows.entries, before[1])


@pytest.mark.parametrize("integer_time", [False, True])
def test_inputs_are_gathered_once_for_each_row_and_again_for_guided_ones(integer_time: bool) -> None:
    rows, slots = Rows(20, integer_time), np.arange(CAPACITY)
    guided = np.flatnonzero(rows.entries["guided"])
    total = CAPACITY + len(guided)
    inputs = rows.inputs(total, integer_time)
    gather, _ = rows.bound(slots, inputs, np.zeros((total, 20), np.float32))
    gather()
    line = rows.lines[rows.entries["line"]]
    whole = np.concatenate([np.arange(CAPACITY), guided])
    np.testing.assert_array_equal(inputs["x"], (rows.x * line[:, SCALE : SCALE + 1])[whole])
    np.testing.assert_array_equal(inputs["t"], line[whole, TIME])
    np.testing.assert_array_equal(inputs["label"][:CAPACITY], rows.labels)
    assert (inputs["label"][CAPACITY:] == 99).all()
    np.testing.assert_array_equal(inputs["own"][CAPACITY:], rows.labels[guided] + 200)
    np.testing.assert_array_equal(inputs["vector"], rows.vectors[whole])


def test_a_row_begins_with_its_own_noise() -> None:
    rows, slots = Rows(300), np.array([5, 2])
    rows.table.begin(slots, 0.5)
    entries = rows.entries[slots]
    seed, row = (torch.from_numpy(entries[name].copy()) for name in ("seed", "row"))
    line, stream = torch.zeros(2, dtype=torch.int64), torch.from_numpy(entries["words"].copy())
    expected = _philox_cpu.normal_reference(seed, row, line, stream, 300) * 0.5
    assert torch.equal(torch.from_numpy(rows.x[slots]), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_found_anywhere(bad: float) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        values = torch.full((1000,), torch.finfo(dtype).max, dtype=dtype)
        assert all_finite(values)
        for place in (0, 511, 999):
            spoiled = values.clone()
            spoiled[place] = bad
            assert not all_finite(spoiled)
