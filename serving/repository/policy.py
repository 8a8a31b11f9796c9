"""Which versions of a model are to be loaded: all of them, or the latest few."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

ALL, LATEST = "all", "latest:"


@dataclass(frozen=True)
class Policy:
    """``latest``: how many, counted from the highest version number; 0 means all."""

    latest: int = 0

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Of ``all`` or ``latest:N``."""
        return cls() if text == ALL else cls(int(text.removeprefix(LATEST)))

    def kept(self, versions: Iterable[int]) -> frozenset[int]:
        """Those of the versions that it keeps."""
        ordered = sorted(versions, reverse=True)
        return frozenset(ordered[: self.latest] if self.latest else ordered)
