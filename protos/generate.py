"""Writes the Python stubs of ``protos/pxserve/v1`` into a folder: ``python protos/generate.py [FOLDER]``.

Modules are ``pxserve.v1.*_pb2``, each with type stubs, services also as ``*_pb2_grpc``. Without FOLDER they
replace the committed ones in ``client/``.
"""

from __future__ import annotations

import argparse
import sys
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
STUBS = PROTOS.parent / "client"


def generate(target: Path) -> None:
    """Write the stubs of every proto into ``target``; raises RuntimeError where protoc refuses them."""
    sources = [str(path.relative_to(PROTOS)) for path in sorted(PROTOS.glob("pxserve/v1/*.proto"))]
    services = [source for source in sources if source.endswith("_service.proto")]
    _protoc(target, sources, "--python_out", "--mypy_out")
    _protoc(target, services, "--grpc_python_out", "--mypy_grpc_out")


def _protoc(target: Path, sources: list[str], *outputs: str) -> None:
    well_known = resources.files("grpc_tools") / "_proto"
    folders = [f"--proto_path={PROTOS}", f"--proto_path={well_known}"]
    plugins = [f"--plugin={name}={Path(sys.executable).parent / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    status = protoc.main(["protoc", *folders, *plugins, *(f"{output}={target}" for output in outputs), *sources])
    if status:
        raise RuntimeError(f"protoc ended with status {status}")


def main() -> None:
    """Entry of ``python protos/generate.py``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=STUBS, help="where the folder pxserve/v1 goes")
    folder: Path = parser.parse_args().folder
    for stale in folder.glob("pxserve/v1/*_pb2*"):
        stale.unlink()
    generate(folder)


if __name__ == "__main__":
    main()
