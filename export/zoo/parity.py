"""What the reference graphs differ from their networks by, as measured when they were committed.

Every build measures again and refuses what is too far off; but a package says the committed figure, so
that its digest, and the calibration that is bound to it, are the same on every processor.
"""

from __future__ import annotations

import json
from pathlib import Path

from export.package.read import list_versions, read_package
from export.package.schema import Parity

RECORD = Path(__file__).with_name("parity.json")


def recorded(name: str, measured: Parity) -> Parity:
    """The committed figure; the measured one for a model that has none yet."""
    known = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return Parity.model_validate(known[name]) if name in known else measured


def record(models: Path) -> None:
    """Commit the figures of freshly built packages (RECORD deleted before, so that they were measured)."""
    figures = {
        name: read_package(models / name / str(versions[-1])).spec.parity.model_dump()
        for name, versions in sorted(list_versions(models).items())
    }
    RECORD.write_text(json.dumps(figures, indent=1) + "\n")
