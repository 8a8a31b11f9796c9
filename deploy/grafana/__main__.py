"""Writes the dashboards: one JSON file for each, to be provisioned or imported."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from deploy.grafana import engine, gpu, latency, overview, rows
from deploy.grafana.model import Dashboard

FOLDER = Path(__file__).resolve().parent / "dashboards"
DASHBOARDS = tuple(module.DASHBOARD for module in (overview, latency, engine, rows, gpu))


def text(dashboard: Dashboard) -> str:
    """The file's content."""
    return json.dumps(dashboard.json(), indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Write them all."""
    for dashboard in DASHBOARDS:
        path = FOLDER / f"{dashboard.uid}.json"
        path.write_text(text(dashboard), encoding="utf-8")
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
