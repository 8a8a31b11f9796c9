"""Writes the Python stubs of the protos: ``python protos/generate.py [--land]``.

Those of ``pxserve/v1`` go to ``client/`` (``*_pb2`` with type stubs, services also ``*_pb2_grpc``), the
messages of ``inference`` to ``serving/api``: the server speaks that protocol; its clients have stubs of their
own, and could not load these beside them. ``--land`` also moves the committed descriptor, which stands for
what callers were promised; it is refused where a promise would break.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
STUBS = PROTOS.parent / "client"
INFERENCE_STUBS = PROTOS.parent / "serving" / "api"
DESCRIPTOR = PROTOS / "descriptor.binpb"
TOOLS = Path(sys.executable).parent


def generate(target: Path) -> None:
    """Write the stubs of pxserve.v1 into ``target``; raises RuntimeError where protoc refuses them."""
    sources = [str(path.relative_to(PROTOS)) for path in sorted(PROTOS.glob("pxserve/v1/*.proto"))]
    services = [source for source in sources if source.endswith("_service.proto")]
    _protoc(target, sources, ["python", "mypy"])
    _protoc(target, services, ["grpc_python", "mypy_grpc"])


def generate_inference(target: Path) -> None:
    """Write the messages of the Open Inference Protocol into ``target``."""
    sources = [str(path.relative_to(PROTOS)) for path in sorted(PROTOS.glob("inference/*.proto"))]
    _protoc(target, sources, ["python", "mypy"])


def _protoc(target: Path, sources: list[str], outputs: list[str]) -> None:
    well_known = resources.files("grpc_tools") / "_proto"
    plugins = [f"--plugin={path}" for path in TOOLS.glob("protoc-gen-mypy*")]
    outs = [f"--{output}_out={'' if output.endswith('python') else 'quiet:'}{target}" for output in outputs]
    status = protoc.main(
        ["protoc", f"--proto_path={PROTOS}", f"--proto_path={well_known}", *plugins, *outs, *sources]
    )
    if status:
        raise RuntimeError(f"protoc ended with status {status}")


def buf(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run buf on the protos; its complaints are in ``stdout`` and ``stderr``."""
    return subprocess.run([TOOLS / "buf", *arguments], capture_output=True, text=True, check=False)


def land() -> None:
    """Move the descriptor to the protos as they are; raises RuntimeError where that breaks callers."""
    if DESCRIPTOR.exists():
        broken = buf("breaking", PROTOS, "--against", DESCRIPTOR)
        if broken.returncode:
            raise RuntimeError(f"these changes break callers:\n{broken.stdout}{broken.stderr}")
    built = buf("build", PROTOS, "--exclude-source-info", "-o", DESCRIPTOR)
    if built.returncode:
        raise RuntimeError(built.stderr)


def main() -> None:
    """Entry of ``python protos/generate.py``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--land", action="store_true", help="also move the committed descriptor")
    arguments = parser.parse_args()
    for stale in (*STUBS.glob("pxserve/v1/*_pb2*"), *INFERENCE_STUBS.glob("inference/*_pb2*")):
        stale.unlink()
    generate(STUBS)
    generate_inference(INFERENCE_STUBS)
    if arguments.land:
        land()


if __name__ == "__main__":
    main()
