"""``python -m pxserve``."""

from __future__ import annotations

import sys

from pxserve.cli import main

sys.exit(main())
