"""Whom a call is from: its bearer token held against the tokens file, or anyone where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from serving.access.principal import ANYONE, NOBODY, Principal, Scope
from serving.access.tokens import Tokens, read_tokens
from serving.access.watched import Watched


class Access:
    """The door of the server. Without a file of tokens it is open, for administration too."""

    def __init__(self, tokens_file: str = "") -> None:
        """Raises TokensError where the file is not fit for use; later changes of it are never fatal."""
        path = Path(tokens_file)
        self._tokens: Watched[Tokens] | None = (
            Watched("tokens", [path], lambda: read_tokens(path)) if tokens_file else None
        )

    @property
    def guarded(self) -> bool:
        """Whether tokens are asked for."""
        return self._tokens is not None

    def admit(self, authorization: Sequence[str | bytes], wanted: frozenset[Scope]) -> Principal:
        """Who asks; raises Unauthenticated or PermissionDenied where a scope is wanted and not shown."""
        if self._tokens is None:
            return ANYONE
        if not wanted:
            return NOBODY
        principal = self._tokens.value.principal(authorization)
        principal.demand(wanted)
        return principal

    def refresh(self) -> None:
        """Read the file again if it has changed."""
        if self._tokens is not None:
            self._tokens.refresh()
