"""Where calls come in: who asks, whether they may, and whether there is room; no message is read yet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from serving.access.access import Access
from serving.access.principal import INFER, LEAST_PRIORITY, MOST_PRIORITY, Asker, Principal, Scope
from serving.api.gate import Gate
from serving.api.pace import Pace
from serving.errors import PermissionDenied, invalid

AUTHORIZATION_KEY = "authorization"
PRIORITY_KEY = "x-priority"

Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True)
class Door:
    """``scopes``: any one of them opens it; none: it is open to everyone. ``pace``: of large messages."""

    access: Access = field(default_factory=Access)
    gate: Gate = field(default_factory=Gate)
    scopes: frozenset[Scope] = INFER
    pace: Pace = field(default_factory=Pace)

    def admit(self, metadata: Metadata) -> Asker:
        """Who asks; raises ServingError where the call is not to be answered."""
        entries = tuple(metadata)
        presented = [value for key, value in entries if key == AUTHORIZATION_KEY]
        principal = self.access.admit(presented, self.scopes)
        self.gate.check()
        return Asker(principal, _priority([v for key, v in entries if key == PRIORITY_KEY], principal))

    async def turn(self, payload: bytes) -> None:
        """Wait until a message may be read: a large one, while other calls are open."""
        await self.pace.turn(len(payload), self.gate.alone)


def _priority(values: list[str | bytes], principal: Principal) -> int:
    if not values:
        return 0
    try:
        priority = int(values[0])
    except ValueError:
        priority = MOST_PRIORITY + 1
    if len(values) > 1 or not LEAST_PRIORITY <= priority <= MOST_PRIORITY:
        raise invalid(PRIORITY_KEY, f"metadata: one integer in {LEAST_PRIORITY}..{MOST_PRIORITY}")
    if priority > principal.max_priority:
        raise PermissionDenied(
            f"{PRIORITY_KEY} {priority} is above {principal.max_priority}, the most that this token may ask",
            metadata={"max_priority": str(principal.max_priority)},
        )
    return priority
