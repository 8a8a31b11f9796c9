"""Progress on stderr: a bar on a terminal, one plain line per step elsewhere."""

from __future__ import annotations

import shutil
import sys
from typing import TextIO

BAR_WIDTH = 24


class Progress:
    """Call it with what is being done and the part of it that is done, in [0, 1]; a context manager."""

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self._title = title
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._last: tuple[str, int] | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal and self._last is not None:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def __call__(self, what: str, part: float) -> None:
        """Show ``part``; elsewhere than on a terminal, only tenths."""
        part = min(max(part, 0.0), 1.0)
        self._stream.write(self._bar(what, part) if self._terminal else self._line(what, part))
        self._stream.flush()

    def _bar(self, what: str, part: float) -> str:
        self._last = (what, 0)
        full = round(part * BAR_WIDTH)
        text = f"{self._title} {'█' * full}{'░' * (BAR_WIDTH - full)} {part:4.0%} {what}"
        return "\r" + text[: shutil.get_terminal_size().columns - 1] + "\x1b[K"

    def _line(self, what: str, part: float) -> str:
        step = (self._title, int(part * 10))
        if step == self._last:
            return ""
        self._last = step
        return f"{self._title}: {part:.0%} {what}\n"
