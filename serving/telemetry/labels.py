"""Label values stay bounded, whatever the names of models and tokens are."""

from __future__ import annotations

MOST_VALUES = 256
MOST_CHARACTERS = 64
OTHER = "other"


class Bounded:
    """The first ``most`` values as they are (cut to 64 characters); those that come later are ``other``."""

    def __init__(self, most: int = MOST_VALUES) -> None:
        self._most = most
        self._known: dict[str, str] = {"": ""}

    def __call__(self, value: str) -> str:
        """The label for a value."""
        known = self._known.get(value)
        if known is None:
            if len(self._known) > self._most:
                return OTHER
            known = self._known[value] = value[:MOST_CHARACTERS]
        return known
