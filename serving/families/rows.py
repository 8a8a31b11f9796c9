"""What a request becomes: a program that yields rows, and tables that advance rows of many requests.

A program is a generator. It yields ``Call`` (one network evaluation per row) or a ``Loop`` (rows that
stay in a table for many ticks), is resumed with the outputs, and returns the answer. Whoever drives
it (the engine; ``drive.run_alone`` in tests) decides with which other rows each network run is shared,
so a program may depend on nothing but its request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
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


class BatchedTable(Table):
    """Rows gathered by index into a network run that other rows and calls share.

    ``steady`` promises that a row's width never changes, and that every step takes exactly one from its
    ``remaining``: the engine then need not ask for them after every tick.
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

    def owners(self, slots: Slots) -> NDArray[np.int64]:
        """For each network row that ``gather`` wrote, the index into ``slots`` that it belongs to.

        Default layout: first one network row per row, then the second ones of rows of width 2.
        """
        index = np.arange(len(slots))
        return np.concatenate([index, index[self.width(slots) == 2]])


class SlottedTable(Table):
    """Rows that own a slot of the network's key/value cache from admission to the end."""

    @abstractmethod
    def prefill(self, slot: int) -> bool:
        """Run one chunk of one row's given prefix; false when none is left.

        Chunk borders depend on the request alone. Only rows without pending prefix decode.
        """

    @abstractmethod
    def pending_prefill(self) -> Slots:
        """Slots that still have a prefix to run, in order of admission."""

    @abstractmethod
    def decode(self, slots: Slots) -> NDArray[np.bool_]:
        """One network run over the cache for these slots; returns which rows had non-finite output.

        Rows that are not in ``slots`` keep state and prefix.
        """

    @abstractmethod
    def release(self, slots: Slots) -> None:
        """Free the slots, finished or not."""


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
