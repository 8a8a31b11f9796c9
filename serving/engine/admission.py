"""What may enter: bounded queue, and deadlines that are known to be missed before any work is done."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from serving.engine.forecast import Floats, Ints, Pace, completion_s
from serving.engine.ledger import Ledger, Waiting
from serving.errors import DeadlineExceeded, ResourceExhausted

SOONEST_RETRY_S = 0.05


@dataclass(frozen=True)
class Cost:
    """What a request is predicted to take.

    Seconds: alone, at the best ever measured, and its share of full runs. It waits for ``lane``, where it is
    ``width`` rows of ``depth`` runs each, at ``pace``.
    """

    rows: int  # result rows
    network_rows: int
    alone_s: float
    best_s: float
    amortised_s: float
    lane: int
    depth: int
    pace: Pace
    held_bytes: int = 0  # memory of its rows

    @property
    def width(self) -> int:
        """Network rows that could run at once."""
        return max(1, -(-self.network_rows // self.depth))


@dataclass(frozen=True)
class Outlook:
    """What admitting a request would mean: when it would be done, and how late it would make others."""

    done_s: float
    lateness_s: float  # of whoever would be latest; 0: everybody is in time who was


class Bid(NamedTuple):
    """How urgent a request is, and whose."""

    priority: int = 0
    share: str = ""
    share_weight: float = 1.0


ORDINARY = Bid()


def admit(
    cost: Cost,
    deadline_s: float | None,
    ledger: Ledger,
    limit_rows: int,
    now_s: float,
    bid: Bid = ORDINARY,
) -> float:
    """Predicted latency in seconds, or an error: the queue is full, or a deadline could not be met.

    That may be its own deadline, or one of its share that was admitted before. An idle engine trusts the best
    it ever measured, so that one slow run cannot refuse everything for ever.
    """
    if not ledger.has_room(cost.rows, limit_rows, bid.share, bid.share_weight):
        raise ResourceExhausted(
            f"the queue holds {ledger.open_rows} rows of {limit_rows}; {cost.rows} more do not fit",
            reason="QUEUE_FULL",
            retry_after_s=max(SOONEST_RETRY_S, outlook(cost, ledger, now_s, bid).done_s - cost.alone_s),
        )
    if deadline_s is not None and cost.best_s > deadline_s:
        raise DeadlineExceeded(
            f"needs about {cost.alone_s:.3f} s even alone, but {deadline_s:.3f} s are left; "
            "ask for fewer rows or steps, or a later deadline",
            reason="DEADLINE_INFEASIBLE",
            metadata={"predicted_seconds": f"{cost.alone_s:.6f}"},
        )
    if _everybody_has_time(cost, deadline_s, ledger, now_s):
        return cost.alone_s + (_beside_others_s(cost, ledger) if ledger.open_tasks else 0.0)
    ahead = outlook(cost, ledger, now_s, bid)
    _check_deadlines(ahead, deadline_s)
    return ahead.done_s


def _beside_others_s(cost: Cost, ledger: Ledger) -> float:
    """What others add where nobody will be late: their turns, or their rows in this one's runs.

    Runs become longer by each row up to the capacity, so that a small request beside large ones takes as
    long as its number of full runs.
    """
    room = cost.depth * max(0, cost.pace.capacity - cost.width)
    alongside_s, company = ledger.beside(cost.lane, cost.depth, cost.amortised_s)
    return max(alongside_s, cost.pace.per_row_s * min(company, room))


def _everybody_has_time(cost: Cost, deadline_s: float | None, ledger: Ledger, now_s: float) -> bool:
    """Whether even the sum of all work ends before the first deadline: the usual case, found cheaply."""
    if not ledger.open_tasks:
        return True
    soonest_s = ledger.soonest_deadline_s - now_s
    if deadline_s is not None:
        soonest_s = min(soonest_s, deadline_s)
    if math.isinf(soonest_s):
        return True
    alone_s = max(cost.depth, ledger.longest_depth) * float(cost.pace.run_s(cost.pace.capacity))
    return (ledger.backlog_s() + cost.amortised_s + alone_s) * cost.pace.margin <= soonest_s


def _check_deadlines(ahead: Outlook, deadline_s: float | None) -> None:
    if deadline_s is not None and ahead.done_s > deadline_s:
        raise ResourceExhausted(
            f"beside other work it would take {ahead.done_s:.3f} s, but {deadline_s:.3f} s are left",
            reason="QUEUE_FULL",
            retry_after_s=max(SOONEST_RETRY_S, ahead.done_s - deadline_s),
        )
    if ahead.lateness_s > 0:
        raise ResourceExhausted(
            f"it would make a request that was admitted before {ahead.lateness_s:.3f} s late",
            reason="QUEUE_FULL",
            retry_after_s=max(SOONEST_RETRY_S, ahead.lateness_s),
        )


def outlook(cost: Cost, ledger: Ledger, now_s: float, bid: Bid = ORDINARY) -> Outlook:
    """Everybody's completion in the lane, the newcomer's among them, in the order in which they would run."""
    waiting = ledger.waiting_in(cost.lane, now_s, *bid)
    key = cost.amortised_s - ledger.priority_s(bid.priority)
    place = int(np.searchsorted(waiting.key, key, side="right"))
    depth = np.insert(waiting.depth, place, cost.depth)
    width = np.insert(waiting.width, place, cost.width)
    done_s = _beside(waiting, depth, width, cost.pace)
    others_s = np.delete(done_s, place)
    late_s = others_s - waiting.due_s
    late = late_s > 0
    if late.any():
        before_s = _beside(waiting, waiting.depth, waiting.width, cost.pace)
        # Not the newcomer's fault: whom it does not delay, and who would most likely be late without it.
        late &= (others_s > before_s) & (before_s <= waiting.due_s * cost.pace.margin)
    return Outlook(float(done_s[place]), float(late_s[late].max(initial=0.0)))


def _beside(waiting: Waiting, depth: Ints, width: Ints, pace: Pace) -> Floats:
    """Completion beside other busy lanes, which get equal device time until their work is done."""
    done_s = completion_s(depth, width, pace) * pace.margin
    return done_s + np.minimum(done_s * waiting.others, waiting.others_s)
