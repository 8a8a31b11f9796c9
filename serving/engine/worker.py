"""The worker: admits, ticks, resumes programs, and tells; runs on the engine's thread alone."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable

import numpy as np
import torch

from serving.engine.batched_lane import BatchedLane
from serving.engine.deadlines import Deadlines
from serving.engine.lane import Lane, Tick
from serving.engine.ledger import Ledger
from serving.engine.messages import Failed, Finished, ModelKey, Stage, Usage
from serving.engine.model import ServedModel
from serving.engine.observer import Observer
from serving.engine.recorder import Recorder
from serving.engine.stepper import Stepper
from serving.engine.streams import Streams
from serving.engine.task import Task
from serving.engine.timeline import Timelines
from serving.engine.turns import Turns
from serving.engine.watchdog import is_sticky
from serving.errors import Cancelled, DeadlineExceeded, Internal, ServingError, Unavailable
from serving.families.result import Result
from serving.families.rows import Call, Loop, Tensors, Yield
from serving.runtime.capture import use_stream

log = logging.getLogger(__name__)

IDLE_WAIT_S = 0.25  # how late an idle engine may notice a deadline of a request that waits for slots
TELL_EVERY_S = 0.25
SETTLE_S = 0.02  # how long a worker must have been idle before it tells what it did
LATE_S = 0.05  # a caller that leaves so shortly before its deadline has been made to leave by it


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
        self._recorder = Recorder(observer, ledger)
        self._timelines = Timelines()
        self._clock = clock
        self._models: dict[ModelKey, ServedModel] = {}
        self._lanes: list[Lane] = []
        self._turns = Turns(ledger)
        self._tasks: dict[int, Task] = {}  # by ledger index
        self._by_number: dict[int, Task] = {}
        self._deadlines = Deadlines(ledger)
        self._streams = Streams(ledger, clock)
        self._refusal: Unavailable | None = None  # of everything, once the loop has ended
        self._tell_s = 0.0
        self._stepper = Stepper(ledger, self._turns, self._recorder, self._timelines, clock)
        self.lost = ""  # why the device is lost, if it is

    @property
    def ended(self) -> bool:
        """Whether the loop has ended: from now on every request is refused."""
        return self._refusal is not None

    @property
    def tick_began_s(self) -> float | None:
        """When the run under way began, if there is one; read by the watchdog."""
        return self._stepper.tick_began_s

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
        use_stream(torch.device(model.loaded.device))
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
            self._deadlines.add(task.deadline_s, task.ticket.number, task.index)
        if task.options.stream:
            self._streams.add(task)
        if task.options.traced:
            self._timelines.begin(task)
        self._resume(task, None)

    def cancel(self, number: int) -> None:
        """The caller left; unknown numbers have ended already."""
        task = self._by_number.get(number)
        if task is not None:
            late = task.deadline_s is not None and self._clock() > task.deadline_s - LATE_S
            counted = DeadlineExceeded.reason if late else Cancelled.reason
            self._fail(task, Cancelled("cancelled by the caller"), counted)

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
        self._recorder.report()

    def drain(self) -> None:
        """Run the commands that wait."""
        while not self._inbox.empty():
            try:
                self._inbox.get_nowait()()
            except queue.Empty:  # somebody else drains a worker that has ended
                return

    def _between_ticks(self) -> None:
        self.drain()
        now_s = self._clock()
        for number, why in self._deadlines.missed(now_s, self._lanes):
            task = self._by_number.get(number)
            if task is not None:
                self._fail(task, DeadlineExceeded(why))
        self._streams.heartbeat(now_s)
        if now_s >= self._tell_s or self._recorder.full:
            self._tell(now_s)

    def _tell(self, now_s: float) -> None:
        self._tell_s = now_s + TELL_EVERY_S
        self._recorder.report()

    def _idle(self) -> None:
        pending = self._recorder.pending
        self._stepper.rest()
        try:
            self._inbox.get(timeout=SETTLE_S if pending else IDLE_WAIT_S)()
        except queue.Empty:
            if pending:
                self._tell(self._clock())

    def _tick(self, lane: Lane) -> None:
        busy = self._turns.rivals or self._streams or self._timelines
        calm_until_s = 0.0 if busy else self._deadlines.soonest_s
        tick = self._stepper.tick(lane, self._models[lane.model], calm_until_s, self._disturbed)
        if not self.ended:
            self._settle(lane, tick)

    def _disturbed(self) -> bool:
        """Whether anybody but the rows of the last run wants anything."""
        return not self._inbox.empty() or self._refusal is not None

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
        usage, stages = self._close(task, "")
        task.ticket.post(Finished(result, usage, stages))

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

    def _fail(self, task: Task, error: ServingError, counted: str = "") -> None:
        """End a task with an error; ``counted`` is its reason in the reports, if it is another."""
        for lane in task.model.lanes.values():
            lane.drop(task.index)
        usage, stages = self._close(task, counted or error.reason)
        task.program.close()
        task.ticket.post(Failed(error, usage=usage, stages=stages))

    def _close(self, task: Task, reason: str) -> tuple[Usage, tuple[Stage, ...]]:
        index = task.index
        usage = self._recorder.ended(task, reason, self._clock())
        del self._tasks[index]
        del self._by_number[task.ticket.number]
        self._deadlines.tidy(self._by_number, len(self._by_number))
        self._streams.remove(task)
        self._ledger.close(index)
        return usage, self._timelines.end(task)


def _unloaded(key: ModelKey) -> Unavailable:
    return Unavailable(f"{key.name}/{key.version} was unloaded; ask again", reason="UNLOADING")
