"""A lane: everything that waits for one network of one model, and how a tick of it goes."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serving.engine.estimate import StepTime
from serving.engine.messages import ModelKey
from serving.engine.residents import Residents
from serving.families.rows import Loop, Slots, Tensors

Tasks = NDArray[np.int64]
Keys = Callable[[Tasks], NDArray[np.float64]]  # task indices -> order, lower first


@dataclass
class Tick:
    """What one tick did; ``tasks`` and ``rows`` pair up: network rows that each task was given, in parts."""

    tasks: Tasks
    rows: NDArray[np.int64]
    network_rows: int = 0
    capacity: int = 0
    padded_rows: int = 0  # network rows that ran for nobody
    prefill: bool = False
    complete: list[tuple[int, Callable[[], Tensors]]] = field(default_factory=list)
    failed: list[tuple[int, Exception]] = field(default_factory=list)
    final: list[tuple[Residents, Slots]] = field(default_factory=list)
    stepped: list[tuple[Residents, Slots]] = field(default_factory=list)
    nonfinite: list[int] = field(default_factory=list)

    @property
    def eventful(self) -> bool:
        """Whether somebody is to be told something, or resumed."""
        return bool(self.complete or self.failed or self.final or self.nonfinite)

    def admitted(self, residents: Residents) -> bool:
        """Tell what ended at admission, without a step; whether anything did."""
        complete, refused = residents.ends()
        self.complete += complete
        self.failed += refused
        return bool(complete or refused)


_numbers = itertools.count()


class Lane(ABC):
    """Rows of many tasks that share the runs of one network."""

    def __init__(self, model: ModelKey, component: str) -> None:
        self.number = next(_numbers)  # its name in the ledger
        self.model = model
        self.component = component
        self.step_time = StepTime()
        self.ticked = 0  # serial of its last tick, so that lanes of a model take turns
        self.max_rows = 1  # network rows of a full run
        self.row_bytes = 0  # memory of a network row that runs or waits

    @abstractmethod
    def busy(self) -> bool:
        """Whether a tick would do anything."""

    @abstractmethod
    def tasks(self) -> Tasks:
        """Tasks whose rows a tick could run; one may stand in it more than once."""

    @abstractmethod
    def contest(self, keys: Keys | None) -> None:
        """Let what waits in by these keys from now on, lowest first; None: in the order in which it came."""

    @abstractmethod
    def tick(self, keys: Keys) -> Tick:
        """One network run, and the rows' advance; failures are in the answer, never raised."""

    def again(self) -> Tick | None:
        """The last run once more, by the same rows and with nothing to decide; None where that is not so."""
        return None

    @abstractmethod
    def add_loop(self, task: int, loop: Loop) -> None:
        """Rows that come to stay."""

    @abstractmethod
    def drop(self, task: int) -> None:
        """Forget a task at once; its neighbours do not notice."""


def joined(parts: list[tuple[Tasks, NDArray[np.int64]]]) -> tuple[Tasks, NDArray[np.int64]]:
    """(tasks, rows) parts as one pair; a task may stand in it more than once."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
