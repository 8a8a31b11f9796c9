"""One admitted request: its program, where it stands, and whom to tell."""

from __future__ import annotations

from dataclasses import dataclass

from serving.engine.messages import Options
from serving.engine.model import ServedModel
from serving.engine.ticket import Ticket
from serving.families.request import Request
from serving.families.rows import Loop, Program


@dataclass(eq=False)
class Task:
    """``index`` is its place in the ledger; ``deadline_s`` on the engine's clock, or None."""

    index: int
    ticket: Ticket
    model: ServedModel
    request: Request
    options: Options
    program: Program
    deadline_s: float | None
    predicted_s: float  # latency, as predicted at admission
    arrived_s: float
    loop: Loop | None = None
    told_s: float = 0.0  # when progress was last posted
