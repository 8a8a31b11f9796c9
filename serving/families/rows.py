"""What a request becomes: a program that yields rows, and tables that advance rows of many requests.

A program is a generator. It yields ``Call`` (one network evaluation per row) or a ``Loop`` (rows that
stay in a table for many ticks), is resumed with the outputs, and returns the answer. Whoever drives
it (the engine; ``drive.run_alone`` in tests) decides with which other rows each network run is shared,
so a program may depend on nothing but its request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from serving.families.capability import Capability
from serving.families.request import Array, Request
from serving.families.result import Result

Tensors = Mapping[str, torch.Tensor]
Slots = NDArray[np.int64]
Step = Callable[[], object]
Advance = Callable[[], int]
FAILED = -1  # rows that ended by a step that was not made


class HostRows(Mapping[str, torch.Tensor]):
    """Tensors over arrays of the host, made when asked: torch is 50 µs of cold code."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = arrays

    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self._arrays[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    @staticmethod
    def array(tensors: Tensors, name: str) -> Array:
        """One of them as an array, copied from the device where it is on one."""
        return tensors._arrays[name] if isinstance(tensors, HostRows) else tensors[name].numpy(force=True)


@dataclass(frozen=True)
class Call:
    """One network evaluation per row: ``inputs`` each [rows, ...]; resumed with outputs [rows, ...]."""

    component: str
    inputs: Tensors

    @property
    def rows(self) -> int:
        """Network rows."""
        return int(next(iter(self.inputs.values())).shape[0])


@dataclass(frozen=True)
class Progress:
    """A running estimate or a phase mark, passed on to streams; resumed with an empty mapping."""

    partial: Result | None = None


class Streamed(Protocol):
    """How rows of a loop look to the caller before the loop ends."""

    def data(self, rows: NDArray[np.int64], state: Tensors) -> tuple[Array, NDArray[np.int32] | None]:
        """Reply data (and lengths) of the given rows of this loop, from their table state."""


@dataclass(frozen=True)
class Loop:
    """Rows that a table advances over many ticks; resumed with the table's ``result`` for all of them.

    ``payload`` is what the table's ``admit`` understands. ``streamed`` (optional) converts the state of
    rows to reply data, for previews and for rows sent as soon as they are final.
    """

    table: str
    rows: int
    payload: object
    steps: NDArray[np.int64]  # [rows] network runs each row takes, an upper bound
    streamed: Streamed | None = None


Yield = Call | Loop | Progress
Program = Generator[Yield, Tensors, Result]


class Table(ABC):
    """Row state of one model's loop, one array per quantity, indexed by slot.

    Subclasses are ``BatchedTable`` (rows are gathered by index into a shared network run) and
    ``SlottedTable`` (rows own a slot of the network's cache to the end).
    """

    component: str  # the network that its rows wait for
    capacity: int
    dims: tuple[tuple[str, int], ...] = ()  # sizes of the network's dynamic axes other than rows

    @abstractmethod
    def admit(self, slots: Slots, loop: Loop) -> None:
        """Write the initial state of ``loop.rows`` rows into ``slots``."""

    @abstractmethod
    def remaining(self, slots: Slots) -> NDArray[np.int64]:
        """Network runs each row still takes, an upper bound; 0: finished."""

    @abstractmethod
    def result(self, slots: Slots) -> Tensors:
        """What the program gets back for these rows [len(slots), ...]; copies, not views."""

    @abstractmethod
    def preview(self, slots: Slots) -> Tensors:
        """State for ``Streamed.data`` before the end (the x0 estimate; tokens so far); copies."""

    def release(self, slots: Slots) -> None:
        """The slots' rows have gone, finished or not; harmless where none came."""
        return


class BatchedTable(Table):
    """Rows gathered by index into a network run that other rows and calls share.

    ``steady`` promises that a row's width never changes, so that the same rows may run again unasked.
    """

    steady = False

    @abstractmethod
    def width(self, slots: Slots) -> NDArray[np.int64]:
        """Network rows each row needs in its next run (2 with guidance)."""

    @abstractmethod
    def gather(self, slots: Slots, inputs: Tensors) -> None:
        """Write the network's inputs into views [sum(width), ...]; changes no state."""

    @abstractmethod
    def advance(self, slots: Slots, outputs: Tensors) -> None:
        """One step of every row from the network's outputs [sum(width), ...], finite by contract."""

    def bound(self, slots: Slots, inputs: Tensors, outputs: Tensors) -> tuple[Step, Advance] | None:
        """``gather`` and ``advance`` of these very rows in these very buffers, as calls without arguments.

        The second answers how many of the rows have nothing ``remaining`` by it; FAILED where what it reads
        is not finite, and nothing was done. Valid until any row of the table comes or goes, or others are
        bound; None where there is no such form.
        """
        return None

    def owners(self, slots: Slots) -> NDArray[np.int64]:
        """For each network row that ``gather`` wrote, the index into ``slots`` that it belongs to.

        Default layout: first one network row per row, then the second ones of rows of width 2.
        """
        index = np.arange(len(slots))
        return np.concatenate([index, index[self.width(slots) == 2]])


class Standing(Protocol):
    """Rows of a table in the first network rows of one binding's buffers, stepped by the device alone.

    ``seat`` tells the device who stands where; then, any number of times, one network run and one ``step``.
    Neither waits for the device. ``flags`` [rows] int32 becomes nonzero where a row's output was not finite.
    """

    flags: torch.Tensor

    def seat(self, slots: Slots) -> None:
        """These rows stand in the first network rows from now on, and no others."""

    def present(self) -> None:
        """Write the network's inputs from the state of whoever is seated; on the device alone."""

    def step(self) -> None:
        """Advance them by the network's outputs and write its next inputs; on the device alone."""

    @property
    def stale(self) -> bool:
        """Whether memory that it reads has moved: another one must take its place."""


class StayingTable(BatchedTable):
    """A table whose rows the device can step without the host, which keeps count."""

    @abstractmethod
    def stays(self, slots: Slots) -> bool:
        """Whether these rows can be stepped so."""

    @abstractmethod
    def stand(self, inputs: Tensors, outputs: Tensors) -> Standing:
        """A standing over these buffers [rows, ...], nobody seated."""

    @abstractmethod
    def count(self, slots: Slots) -> None:
        """The host's account of one step of these rows."""


class SlottedTable(Table):
    """Rows that own a slot of the network's key/value cache from admission to the end."""

    @abstractmethod
    def prefill(self, slot: int) -> bool:
        """Run one chunk of one row's given prefix; false when none is left.

        Chunk borders depend on the request alone. Only rows without pending prefix decode.
        """

    def neighbours(self, slot: int) -> Slots:
        """Slots whose next chunks may share a run with this one's, which is among them; a range."""
        return np.array([slot])

    def prefill_together(self, slots: Slots) -> None:
        """Run one chunk of each of these neighbours."""
        for slot in slots.tolist():
            self.prefill(slot)

    @abstractmethod
    def pending_prefill(self) -> Slots:
        """Slots that still have a prefix to run, in order of admission."""

    @abstractmethod
    def decode(self, slots: Slots) -> NDArray[np.bool_]:
        """One network run over the cache for these slots; returns which rows had non-finite output.

        Rows that are not in ``slots`` keep state and prefix.
        """


class RunningTable(SlottedTable):
    """A slotted table whose rows the device can decode without the host, which reads what they drew later."""

    @abstractmethod
    def stays(self, slots: Slots) -> bool:
        """Whether these rows can be decoded so."""

    @abstractmethod
    def prepare(self, max_rows: int) -> None:
        """Record runs of up to ``max_rows`` rows, before the first request."""

    @abstractmethod
    def exhausted(self) -> NDArray[np.bool_]:
        """[capacity] rows that have been started on all the steps that they may take."""

    @abstractmethod
    def start(self, slots: Slots) -> Callable[[], tuple[Slots, NDArray[np.bool_]]]:
        """Start one step of these rows; waits for nothing.

        What it returns waits for the step and appends its symbols. Its answer: those of the rows that have
        neither ended nor left since, and which of them were not finite (they keep their symbols).
        """


class Family(Protocol):
    """The mathematics of one package: what can be asked, and how each request unfolds."""

    name: str
    two_sided: frozenset[str]  # anomaly methods whose score is the distance from a centre

    def capabilities(self) -> tuple[Capability, ...]:
        """One Capability per operation, in the order of the enum."""

    def program(self, request: Request) -> Program:
        """The program of a request; nothing runs before it is driven."""

    def network_rows(self, request: Request) -> dict[str, int]:
        """Network rows by component that the request takes (an upper bound), known before it starts."""

    def statistics(self, request: Request) -> Program:
        """For calibration: answers a ScoreAnomaly request with raw statistics as ``score``, no p-values."""

    def tables(
        self, components: Mapping[str, object], capacity: int, device: torch.device
    ) -> dict[str, Table]:
        """Empty tables of ``capacity`` rows, by the names that loops use."""
