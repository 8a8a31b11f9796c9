"""Files that may change while the server runs: read again when they did, kept as they were if that fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

log = logging.getLogger("pxserve.access")

Read = TypeVar("Read")
Stamp = tuple[tuple[int, int, int] | None, ...]


class Watched(Generic[Read]):
    """What was last read well from some files; any thread may ask.

    ``read`` raises where the files are not fit for use: at first its error is the caller's, afterwards it is
    logged, once for each change, and the last good value stays.
    """

    def __init__(self, what: str, paths: Sequence[Path], read: Callable[[], Read]) -> None:
        self._what = what
        self._paths = tuple(paths)
        self._read = read
        self._lock = threading.Lock()
        self._stamp = self._now()
        self.value = read()

    def refresh(self) -> bool:
        """Read again if a file has changed; whether there is a new value."""
        with self._lock:
            stamp = self._now()
            if stamp == self._stamp:
                return False
            self._stamp = stamp
            try:
                self.value = self._read()
            except Exception as error:  # whatever is wrong with the new files, the old value serves on
                log.error("kept the old %s: %s", self._what, error)
                return False
        log.info("read the new %s", self._what)
        return True

    def _now(self) -> Stamp:
        """Follows links, since that is how mounted secrets are swapped."""
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
