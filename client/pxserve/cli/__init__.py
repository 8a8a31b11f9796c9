"""The ``pxserve`` command. Exit codes: 0 answered, 1 the server said no, 2 usage."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

EXTRA = ("rich", "PIL")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of ``pxserve``; needs the extra ``cli``, and says so."""
    if not all(importlib.util.find_spec(name) for name in EXTRA):
        sys.stderr.write("pxserve: the command line needs its extra: pip install 'pxserve[cli]'\n")
        return 2
    from pxserve.cli.run import run  # only now, since it imports what the extra brings

    return run(arguments)
