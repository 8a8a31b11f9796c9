"""``python -m export``: the command ``pxserve-export``."""

from __future__ import annotations

from export.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
