"""The W3C header ``traceparent``: which trace a call belongs to, read without OpenTelemetry."""

from __future__ import annotations

import re
from collections.abc import Iterable

KEY = "traceparent"
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

Metadata = Iterable[tuple[str, str | bytes]]


def sampled_trace(metadata: Metadata) -> str:
    """The 32 hexadecimal digits of a trace that its caller records; empty for any other header, or none."""
    for key, value in metadata:
        if key == KEY and isinstance(value, str):
            found = _FORM.fullmatch(value)
            if found is not None and _valid(*found.groups()):
                return found[2]
    return ""


def _valid(version: str, trace: str, span: str, flags: str, more: str | None) -> bool:
    known = version != "ff" and not (version == "00" and more)
    return known and bool(int(trace, 16)) and bool(int(span, 16)) and bool(int(flags, 16) & 1)
