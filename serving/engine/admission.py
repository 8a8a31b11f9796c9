"""What may enter: bounded queue, and deadlines that are known to be missed before any work is done."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serving.engine.ledger import Ledger
from serving.errors import DeadlineExceeded, ResourceExhausted


@dataclass(frozen=True)
class Cost:
    """Predicted seconds of a request: alone, at the best ever measured, and its share of full runs."""

    rows: int  # result rows
    network_rows: int
    alone_s: float
    best_s: float
    amortised_s: float


def admit(cost: Cost, deadline_s: float | None, ledger: Ledger, queued_rows: int, limit_rows: int) -> None:
    """Raise where the queue is full or the deadline cannot be met; an idle engine trusts its best."""
    wait_s = predicted_wait_s(cost, ledger)
    if queued_rows + cost.rows > limit_rows:
        raise ResourceExhausted(
            f"the queue holds {queued_rows} rows of {limit_rows}; {cost.rows} more do not fit",
            reason="QUEUE_FULL",
            retry_after_s=max(0.05, wait_s),
        )
    if deadline_s is None:
        return
    if cost.best_s > deadline_s:
        raise DeadlineExceeded(
            f"needs about {cost.alone_s:.3f} s even alone, but {deadline_s:.3f} s are left; "
            "ask for fewer rows or steps, or a later deadline",
            reason="DEADLINE_INFEASIBLE",
            metadata={"predicted_seconds": f"{cost.alone_s:.6f}"},
        )
    if wait_s > 0 and wait_s + cost.alone_s > deadline_s:
        raise ResourceExhausted(
            f"behind {wait_s:.3f} s of other work it would take {wait_s + cost.alone_s:.3f} s, "
            f"but {deadline_s:.3f} s are left",
            reason="QUEUE_FULL",
            retry_after_s=max(0.05, wait_s + cost.alone_s - deadline_s),
        )


def predicted_wait_s(cost: Cost, ledger: Ledger) -> float:
    """Work that goes first or alongside: of each request, at most as much as this one brings itself.

    Under least remaining work first, a request waits for the shorter ones whole, and shares runs with
    longer ones only while its own work lasts.
    """
    return float(np.minimum(ledger.all_remaining_s(), cost.amortised_s).sum())
