"""Who asks: what a bearer token stands for, or anyone where the server has no tokens."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from serving.engine.messages import Options, Quota
from serving.errors import PermissionDenied

LEAST_PRIORITY, MOST_PRIORITY = -100, 100


class Scope(enum.StrEnum):
    """What a token opens."""

    INFER = "infer"  # every question to a model, and what may be asked of it
    ADMIN = "admin"  # loading, unloading, self-tests; and the list of models


OPEN: frozenset[Scope] = frozenset()  # for everyone, without a token
INFER = frozenset({Scope.INFER})
ADMIN = frozenset({Scope.ADMIN})
EITHER = INFER | ADMIN


@dataclass(frozen=True)
class Principal:
    """``name`` is what logs and metrics show, and the share of the device that its requests use."""

    name: str
    scopes: frozenset[Scope]
    share_weight: float = 1.0
    max_priority: int = 0
    quota: Quota | None = None

    def demand(self, wanted: frozenset[Scope]) -> None:
        """Raise PermissionDenied unless it has one of the scopes; none wanted: whoever asks."""
        if wanted and not wanted & self.scopes:
            scope = " or ".join(sorted(wanted))
            raise PermissionDenied(
                f"the token {self.name!r} has no scope {scope}; ask its operator for one that has",
                metadata={"scope": scope},
            )


ANYONE = Principal("", EITHER, max_priority=MOST_PRIORITY)
NOBODY = Principal("", OPEN)


@dataclass(frozen=True)
class Asker:
    """Who asks, and how urgently; the default is anyone, in turn."""

    principal: Principal = ANYONE
    priority: int = 0

    def options(self, **given: Any) -> Options:
        """How a request of this asker is run; ``given`` as in Options."""
        principal = self.principal
        return Options(
            priority=self.priority,
            share=principal.name,
            share_weight=principal.share_weight,
            quota=principal.quota,
            **given,
        )
