"""Writes one package again and again until it is killed: ``python -m tests.reliability.writer FROM TO``.

Even rounds publish a new version, odd ones replace version 1.
"""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

import yaml

from export.package.write import write_package


def main() -> None:
    """For ever."""
    source, to = Path(sys.argv[1]), Path(sys.argv[2])
    spec = yaml.safe_load((source / "model.yaml").read_text())
    files: dict[str, Path | bytes] = {name: source / name for name in spec.pop("files")}
    versions = to / spec["name"]
    published = [int(path.name) for path in versions.glob("[0-9]*")] if versions.exists() else []
    sys.stdout.write("writing\n")
    sys.stdout.flush()
    for number in count(max(published, default=0) + 1):
        write_package(spec, files, to, number)
        write_package(spec, files, to, 1, replace=True)


if __name__ == "__main__":
    main()
