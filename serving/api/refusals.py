"""What was refused a moment ago is refused again without asking the engine, whose time is others'."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import NoReturn

from serving.engine.messages import ModelKey, Options
from serving.errors import ResourceExhausted, ServingError
from serving.families.request import Request

QUEUE_FULL = "QUEUE_FULL"
HOLD_S = 0.1  # at most; the queue may empty sooner than was predicted
MOST_KINDS = 256
LEAST_RETRY_S = 0.05


@dataclass(frozen=True)
class _Refused:
    """``until_s``: before then nobody of this kind gets in whose deadline is before ``done_s``."""

    error: ServingError
    until_s: float
    room_s: float  # when the engine said that there would be room
    done_s: float  # when this one would have been done


class Refusals:
    """Refusals for want of room, by kind of request; lives on the event loop.

    Under overload most requests are refused, and each refusal of the engine costs a look at all work in its
    queue, in the process that is short of time. The engine says when there will be room; until then, but for
    ``HOLD_S`` at most, the same kind of request with no later a deadline would hear the same.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[Hashable, _Refused] = {}

    def check(self, key: ModelKey, request: Request, options: Options) -> None:
        """Raise what the engine would; usually there is nothing to look at."""
        if not self._known:
            return
        kind, now_s = _kind(key, request, options), self._clock()
        known = self._known.get(kind)
        if known is None:
            return
        if now_s >= known.until_s:
            del self._known[kind]
        elif now_s + _deadline_s(options) <= known.done_s:
            _refuse(known.error, known.room_s - now_s)

    def learn(self, key: ModelKey, request: Request, options: Options, error: ServingError) -> None:
        """The engine refused."""
        if error.reason != QUEUE_FULL or error.retry_after_s is None:
            return
        if len(self._known) >= MOST_KINDS:
            self._known.clear()
        now_s, retry_s = self._clock(), error.retry_after_s
        done_s = now_s + _deadline_s(options) + retry_s
        refused = _Refused(error, now_s + min(retry_s, HOLD_S), now_s + retry_s, done_s)
        self._known[_kind(key, request, options)] = refused


def _deadline_s(options: Options) -> float:
    return math.inf if options.deadline_s is None else options.deadline_s


def _kind(key: ModelKey, request: Request, options: Options) -> Hashable:
    """Whatever a request's place in the queue depends on; not its seed, nor its data."""
    lengths = None if request.lengths is None else request.lengths.tobytes()
    shape = None if request.data is None else request.data.shape
    size = request.rows, request.completions, shape, lengths
    asked = request.operation, request.method, frozenset(request.parameters.items())
    return key, asked, size, options.share, options.priority


def _refuse(error: ServingError, retry_after_s: float) -> NoReturn:
    raise ResourceExhausted(
        error.message,
        reason=error.reason,
        metadata=error.metadata,
        retry_after_s=max(LEAST_RETRY_S, retry_after_s),
    )
