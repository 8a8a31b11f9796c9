"""The engine: one thread per device; each tick is one network run for whatever rows wait for it."""

from __future__ import annotations

import itertools
import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from serving.engine.admission import Bid, Cost, admit, outlook
from serving.engine.forecast import Pace
from serving.engine.ledger import Ledger, Place
from serving.engine.memory import check_memory, default_limit_bytes
from serving.engine.messages import ModelKey, Options, Quote
from serving.engine.model import LoadedModel, ServedModel, open_model
from serving.engine.observer import Nobody, Observer
from serving.engine.task import Task
from serving.engine.ticket import Ticket
from serving.engine.watchdog import Watchdog
from serving.engine.work import Work
from serving.engine.worker import Worker
from serving.errors import NotFound, Unavailable
from serving.families.calibration import Calibration
from serving.families.request import Request
from serving.families.rows import Program
from serving.runtime.allocator import keep_freed_memory, return_freed_memory
from serving.runtime.network import RuntimeOptions

if TYPE_CHECKING:
    from export.package.read import Package

log = logging.getLogger(__name__)

Command = Callable[[], None]
LOOK_EVERY_S = 1.0  # at whether the worker still answers


class Engine:
    """Thread-safe front of the worker thread; knows nothing of gRPC.

    ``submit`` refuses at once or returns a Ticket of events. Nothing is shared with the worker but the
    inbox and the ledger, which admission reads. ``alive`` turns false for good when the device is lost or
    a run hangs longer than ``hang_s``; the process should then end, for its supervisor to restart it.
    """

    def __init__(
        self,
        *,
        device: torch.device | None = None,
        max_rows: int = 64,
        queue_rows: int = 4096,
        memory_bytes: int = 0,
        threads: int = 0,
        metrics: Observer | None = None,
        hang_s: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runtime = RuntimeOptions(device or torch.device("cpu"), threads, max_rows)
        self._queue_rows = queue_rows
        self._memory_bytes = memory_bytes or default_limit_bytes(self._runtime.device)
        self._clock = clock
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._models: dict[ModelKey, ServedModel] = {}
        self._draining = self._started = False
        self._ledger = Ledger()
        self._worker = Worker(self._ledger, self._inbox, metrics or Nobody(), clock)
        self._thread = threading.Thread(target=self._worker.run, name="engine", daemon=True)
        self._watchdog = Watchdog(self._worker, hang_s, clock)

    @property
    def alive(self) -> bool:
        """Whether the worker runs and its device answers."""
        return self._thread.is_alive() and not self._worker.lost

    def start(self) -> None:
        """Start the worker thread; requests may have been submitted before."""
        self._started = True
        keep_freed_memory()
        if self._runtime.threads:
            torch.set_num_threads(self._runtime.threads)
        self._thread.start()
        self._watchdog.start()

    def stop(self, grace_s: float = 0.0) -> None:
        """Refuse new work, let admitted work finish within ``grace_s``, then fail the rest."""
        self._draining = True
        until = self._clock() + grace_s
        while self.alive and self._ledger.open_tasks and self._clock() < until:
            time.sleep(0.01)
        self._watchdog.stop()
        self._inbox.put(self._worker.shut)
        if self.alive:
            self._thread.join(timeout=30.0)
        else:
            self._worker.drain()

    def load(
        self,
        key: ModelKey,
        package: Package,
        calibration: Calibration | None = None,
        warming: Callable[[], object] = lambda: None,
    ) -> LoadedModel:
        """Open, warm and attach a package; blocking. ``warming`` is called before the networks run."""
        model = open_model(key, package, calibration, self._runtime, warming)
        self.attach(model)
        return_freed_memory()
        return model.loaded

    def attach(self, model: ServedModel) -> None:
        """Serve a model that is open already."""
        self._call(lambda: self._worker.attach(model))
        self._models[model.key] = model

    def unload(self, key: ModelKey) -> None:
        """No new requests; blocks until those in flight have ended, then frees the model."""
        model = self._models.pop(key, None)
        if model is None:
            raise NotFound(f"{key.name}/{key.version} is not loaded")
        while self._worker.tasks_of(key):
            time.sleep(0.005)
        self._call(lambda: self._worker.detach(key))
        del model
        return_freed_memory()

    def quote(self, key: ModelKey, request: Request) -> Quote:
        """What the request would cost now; computes nothing."""
        model = self._model(key)
        cost = self._cost(model, request)
        done_s = outlook(cost, self._ledger, self._clock()).done_s if self._ledger.open_tasks else 0.0
        queued_s = max(0.0, done_s - cost.alone_s)
        return Quote(model.family.network_rows(request), cost.alone_s, queued_s)

    def submit(
        self,
        key: ModelKey,
        request: Request,
        options: Options | None = None,
        program: Program | None = None,
        ticket: Ticket | None = None,
    ) -> Ticket:
        """Admit a request, or raise why not; returns at once. ``program`` replaces the request's own."""
        options = options or Options()
        model = self._model(key)
        if self._draining or (self._started and not self.alive):
            raise Unavailable("the server is draining; ask another replica", reason="DRAINING")
        cost = self._cost(model, request)
        program = program or model.family.program(request)
        ticket = ticket or Ticket(next(self._numbers), self.cancel)
        now_s = self._clock()
        deadline_s = None if options.deadline_s is None else now_s + options.deadline_s
        bid = Bid(options.priority, options.share, options.share_weight)
        with self._lock:
            if options.quota is not None:
                self._ledger.check_quota(options.share, options.quota, now_s)
            check_memory(cost.held_bytes, self._ledger, self._memory_bytes)
            predicted_s = admit(cost, options.deadline_s, self._ledger, self._queue_rows, now_s, bid)
            index = self._open(cost, now_s, deadline_s, bid)
        task = Task(index, ticket, model, request, options, program, deadline_s, predicted_s, now_s)
        self._inbox.put(lambda: self._worker.begin(task))
        if self._worker.ended:  # just now: nobody else reads the inbox any more
            self._worker.drain()
        return ticket

    def _open(self, cost: Cost, now_s: float, deadline_s: float | None, bid: Bid) -> int:
        due_s = math.inf if deadline_s is None else deadline_s
        place = Place(cost.lane, cost.depth, due_s, cost.held_bytes)
        work = cost.network_rows, cost.rows, cost.amortised_s
        return self._ledger.open(*work, now_s, bid.priority, bid.share, place, bid.share_weight)

    def cancel(self, number: int) -> None:
        """Free a request's rows by the next tick; harmless when it has ended."""
        self._inbox.put(lambda: self._worker.cancel(number))

    def _model(self, key: ModelKey) -> ServedModel:
        model = self._models.get(key)
        if model is None:
            raise NotFound(f"{key.name}/{key.version} is not loaded")
        return model

    def _cost(self, model: ServedModel, request: Request) -> Cost:
        work = Work.of(model.family, request)
        price = work.price(model.lanes)
        lane, network_rows = price.longest, work.total_rows
        rows, depth = request.rows * request.completions, max(1, min(work.depth, network_rows))
        return Cost(
            rows=rows,
            network_rows=network_rows,
            alone_s=price.alone_s,
            best_s=price.best_s,
            amortised_s=price.amortised_s,
            lane=lane.number,
            depth=depth,
            pace=Pace(lane.max_rows, *lane.step_time.coefficients(), lane.step_time.margin),
            held_bytes=-(-network_rows // depth) * lane.row_bytes + rows * model.answer_bytes,
        )

    def _call(self, command: Command) -> None:
        """Run a command between two ticks and wait for it."""
        if not self.alive:
            command()
            return
        done = threading.Event()

        def and_tell() -> None:
            try:
                command()
            finally:
                done.set()

        self._inbox.put(and_tell)
        while not done.wait(LOOK_EVERY_S):
            if self._worker.ended:
                self._worker.drain()
