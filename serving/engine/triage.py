"""Who is next and cannot be in time any more: told at once, so that the device works for those who can."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from serving.engine.forecast import Pace, completion_s
from serving.engine.lane import Lane, Tasks
from serving.engine.ledger import Ledger

MOST_AT_ONCE = 8


def hopeless(ledger: Ledger, lanes: Iterable[Lane], now_s: float) -> list[int]:
    """Tasks that have not begun, are at the head of their line, and would be late by admission's forecast.

    Only in lanes where rows have to wait for one another: elsewhere a task begins at the next tick, whatever
    is predicted. Under overload a queue is as long as deadlines allow, so that a device that becomes a little
    slower makes all of it late; without triage it would go on working for the late ones. Whoever is further
    behind is left alone: those before it may leave, and the device may recover.
    """
    with ledger.lock:
        return [task for lane in lanes for task in _in_lane(ledger, lane, now_s)]


def _in_lane(ledger: Ledger, lane: Lane, now_s: float) -> list[int]:
    tasks = np.flatnonzero(ledger.lane == lane.number)
    width = -(-ledger.total[tasks] // ledger.depth[tasks])
    full_s = lane.step_time.seconds(lane.max_rows)
    suspects = now_s + ledger.depth[tasks] * full_s > ledger.deadline[tasks]
    if int(width.sum()) <= lane.max_rows or not (suspects & np.isnan(ledger.started[tasks])).any():
        return []
    return _late(ledger, lane, tasks[np.argsort(ledger.keys(tasks, now_s), kind="stable")], now_s)


def _late(ledger: Ledger, lane: Lane, line: Tasks, now_s: float) -> list[int]:
    """One after another leaves the line, until its head has time enough."""
    pace, found = Pace(lane.max_rows, *lane.step_time.coefficients()), list[int]()
    left = 1.0 - ledger.done[line] / np.maximum(ledger.total[line], 1)
    depth = np.maximum(np.ceil(ledger.depth[line] * left), 1.0).astype(np.int64)
    width = np.maximum(-(-ledger.total[line] // ledger.depth[line]), 1)
    kept = np.ones(len(line), np.bool_)
    for head in np.flatnonzero(np.isnan(ledger.started[line]))[:MOST_AT_ONCE].tolist():
        done_s = completion_s(depth[kept], width[kept], pace)[int(kept[:head].sum())]
        if now_s + done_s <= ledger.deadline[line[head]]:
            break
        kept[head] = False
        found.append(int(line[head]))
    return found
