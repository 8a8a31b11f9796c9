"""What a scheduler says, as parts of ``model.yaml``, with what its users should know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Scheduled:
    """``section``: keys of ``diffusion``; ``notes``: what differs from the source, in sentences.

    ``bound``: x0 is clipped to [-bound, bound] by default; None: not at all. ``unit_range``: the source's
    pipelines take pixels in [0, 1] instead of [-1, 1].
    """

    section: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    bound: float | None = None
    unit_range: bool = False
