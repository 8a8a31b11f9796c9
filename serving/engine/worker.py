"""The worker: admits, ticks, resumes programs, and tells; runs on the engine's thread alone."""

from __future__ import annotations

import heapq
import logging
import queue
from collections.abc import Callable

import numpy as np
import torch

from serving.engine.batched_lane import BatchedLane
from serving.engine.lane import Lane, Tick
from serving.engine.ledger import Ledger
from serving.engine.messages import Failed, Finished, ModelKey, Usage
from serving.engine.model import ServedModel
from serving.engine.observer import Observer
from serving.engine.streams import Streams
from serving.engine.task import Task
from serving.engine.turns import Turns
from serving.engine.watchdog import is_sticky
from serving.errors import Cancelled, DeadlineExceeded, Internal, ServingError, Unavailable
from serving.families.result import Result
from serving.families.rows import Call, Loop, Tensors, Yield

log = logging.getLogger(__name__)

IDLE_WAIT_S = 0.25  # how late an idle engine may notice a deadline of a request that waits for slots
TELL_EVERY_S = 0.25


class Worker:
    """Owner of every task, lane and table. Only ``open_tasks`` and ``tasks_of`` are read from outside."""

    def __init__(
        self,
        ledger: Ledger,
        inbox: queue.SimpleQueue[Callable[[], None]],
        observer: Observer,
        clock: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._inbox = inbox
        self._observer = observer
        self._clock = clock
        self._models: dict[ModelKey, ServedModel] = {}
        self._lanes: list[Lane] = []
        self._turns = Turns()
        self._tasks: dict[int, Task] = {}  # by ledger index
        self._by_number: dict[int, Task] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._streams = Streams(ledger, clock)
        self._refusal: Unavailable | None = None  # of everything, once the loop has ended
        self._tell_s = 0.0
        self.tick_began_s: float | None = None  # read by the watchdog
        self.lost = ""  # why the device is lost, if it is

    @property
    def ended(self) -> bool:
        """Whether the loop has ended: from now on every request is refused."""
        return self._refusal is not None

    @property
    def open_tasks(self) -> int:
        """Requests that have not ended."""
        return len(self._tasks)

    def tasks_of(self, key: ModelKey) -> int:
        """Requests of one model that have not ended."""
        return sum(task.model.key == key for task in list(self._tasks.values()))

    # -- commands, run between ticks -----------------------------------------------------------------

    def attach(self, model: ServedModel) -> None:
        """Serve a model."""
        self._models[model.key] = model
        self._lanes += model.lanes.values()

    def detach(self, key: ModelKey) -> None:
        """Forget a model; a request that slipped in beside the unloading fails."""
        for task in [t for t in self._tasks.values() if t.model.key == key]:
            self._fail(task, _unloaded(key))
        model = self._models.pop(key)
        kept = set(map(id, model.lanes.values()))
        self._lanes = [lane for lane in self._lanes if id(lane) not in kept]
        self._turns.forget(key)

    def begin(self, task: Task) -> None:
        """Start a request's program."""
        known = task.model.key in self._models
        if self._refusal is not None or not known:
            self._ledger.close(task.index)
            task.ticket.post(Failed(self._refusal or _unloaded(task.model.key)))
            return
        self._tasks[task.index] = task
        self._by_number[task.ticket.number] = task
        if task.deadline_s is not None:
            heapq.heappush(self._deadlines, (task.deadline_s, task.ticket.number))
        if task.options.stream:
            self._streams.add(task)
        self._resume(task, None)

    def cancel(self, number: int) -> None:
        """The caller left; unknown numbers have ended already."""
        if number in self._by_number:
            self._fail(self._by_number[number], Cancelled("cancelled by the caller"))

    def shut(self) -> None:
        """Fail what is left and end the thread."""
        self._refusal = Unavailable("the server is shutting down; ask another replica")
        for task in list(self._tasks.values()):
            self._fail(task, self._refusal)

    def lose(self, why: str) -> None:
        """The device is of no use any more: everything in flight fails, and the thread ends."""
        self.lost = why
        log.critical("%s; %d requests fail", why, len(self._tasks))
        self._refusal = Unavailable(f"{why}; ask another replica", reason="DEVICE_LOST")
        # The watchdog calls this while a run may hang: if it ends after all, it finds no task to resume.
        tasks, self._tasks, self._by_number = self._tasks, {}, {}
        for task in list(tasks.values()):
            self._ledger.close(task.index)
            task.ticket.post(Failed(self._refusal))
        self.drain()

    # -- the loop ------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until ``shut``: commands, deadlines, one tick."""
        try:
            # Rows may overflow and are found by their non-finite outputs, without a warning.
            with torch.inference_mode(), np.errstate(all="ignore"):
                while not self.ended:
                    self._between_ticks()
                    lane = self._turns.choose(self._lanes)
                    if lane is None:
                        self._idle()
                    else:
                        self._tick(lane)
        except Exception as error:
            log.exception("the engine's loop failed")
            self.lose(f"the engine failed: {error}")
        self.drain()

    def drain(self) -> None:
        """Run the commands that wait."""
        while True:
            try:
                self._inbox.get_nowait()()
            except queue.Empty:
                return

    def _between_ticks(self) -> None:
        self.drain()
        now_s = self._clock()
        while self._deadlines and self._deadlines[0][0] <= now_s:
            task = self._by_number.get(heapq.heappop(self._deadlines)[1])
            if task is not None:
                self._fail(task, DeadlineExceeded("the deadline passed while it ran or waited"))
        self._streams.heartbeat(now_s)
        if now_s >= self._tell_s:
            self._tell_s = now_s + TELL_EVERY_S
            self._observer.queue(*self._ledger.queued_and_active_rows())
            self._observer.backlog(self._ledger.backlog_s())

    def _idle(self) -> None:
        try:
            self._inbox.get(timeout=IDLE_WAIT_S)()
        except queue.Empty:
            return

    def _tick(self, lane: Lane) -> None:
        begun_s = self.tick_began_s = self._clock()
        tick = lane.tick(lambda tasks: self._ledger.keys(tasks, begun_s))
        self.tick_began_s = None
        if self.ended:
            return
        now_s = self._clock()
        seconds = now_s - begun_s
        if tick.network_rows:
            lane.step_time.observe(tick.network_rows, seconds)
        self._turns.charge(lane.model, seconds)
        self._ledger.charge(tick.tasks, tick.rows, seconds, now_s)
        self._observer.tick(lane.model.name, lane.component, seconds, tick.network_rows, tick.capacity)
        self._settle(lane, tick)

    def _settle(self, lane: Lane, tick: Tick) -> None:
        for _, error in tick.failed:
            if is_sticky(error):
                self.lose(f"the device is lost: {error}")
                return
        # Before anything is freed: a freed slot may belong to another task at once.
        unseen = self._streams.after(tick)
        for index, error in tick.failed:
            self._fail_internal(index, error, f"network {lane.component} failed")
        for index in tick.nonfinite:
            self._fail_internal(index, None, f"network {lane.component} returned NaN or infinity")
        for index, error in unseen:
            self._fail_internal(index, error, "showing the rows failed")
        for index, take in tick.complete:
            if index in self._tasks:
                task = self._tasks[index]
                task.loop = None
                self._resume(task, take)

    # -- programs ------------------------------------------------------------------------------------

    def _resume(self, task: Task, take: Callable[[], Tensors] | None) -> None:
        """Run the program to its next rows, or to its end."""
        try:
            self._place(task, next(task.program) if take is None else task.program.send(take()))
        except StopIteration as stop:
            self._finish(task, stop.value)
        except ServingError as error:
            self._fail(task, error)
        except Exception as error:
            self._fail_internal(task.index, error, "the program failed")

    def _place(self, task: Task, work: Yield) -> None:
        while not isinstance(work, Call | Loop):
            self._streams.partial(task, work.partial)
            work = task.program.send({})
        if isinstance(work, Loop):
            task.loop = work
            task.model.table_lanes[work.table].add_loop(task.index, work)
            return
        lane = task.model.lanes[work.component]
        assert isinstance(lane, BatchedLane)
        lane.add_call(task.index, work)

    def _finish(self, task: Task, result: Result) -> None:
        usage = self._close(task)
        task.ticket.post(Finished(result, usage))

    def _fail_internal(self, index: int, cause: Exception | None, what: str) -> None:
        task = self._tasks.get(index)
        if task is None:
            return
        error = Internal(f"{what}; the error id finds it in the server's log", model=task.model.key.name)
        log.error(
            "%s (error id %s, request %s)",
            what,
            error.metadata["error_id"],
            task.options.request_id,
            exc_info=cause,
        )
        self._fail(task, error)

    def _fail(self, task: Task, error: ServingError) -> None:
        for lane in task.model.lanes.values():
            lane.drop(task.index)
        self._close(task)
        task.program.close()
        task.ticket.post(Failed(error))

    def _close(self, task: Task) -> Usage:
        index = task.index
        usage = self._ledger.usage(index)
        del self._tasks[index]
        del self._by_number[task.ticket.number]
        if len(self._deadlines) > 2 * len(self._tasks) + 64:  # most of them have ended
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._by_number]
            heapq.heapify(self._deadlines)
        self._streams.remove(task)
        self._ledger.close(index)
        self._observer.finished(task.model.key.name, usage)
        return usage


def _unloaded(key: ModelKey) -> Unavailable:
    return Unavailable(f"{key.name}/{key.version} was unloaded; ask again", reason="UNLOADING")
