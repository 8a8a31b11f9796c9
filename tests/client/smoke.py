"""Asks the fake server in an environment that holds the client alone: ``python tests/client/smoke.py``."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import pxserve.v1
from pxserve import Client
from tests.client.fake_server import Script, start


def main() -> None:
    modules = [module.name for module in pkgutil.iter_modules(pxserve.v1.__path__, "pxserve.v1.")]
    for module in modules:
        importlib.import_module(module)
    server, target = start(Script())
    with Client(target, timeout_s=10) as client:
        assert client.sample("digits", 2, seed=7, label=3, steps=5).data[1, 0, 0, 0] == 8
        assert len(list(client.stream_sample("digits", 2))) == 6
        assert client.get_model("digits").state == "ready"
    server.stop(None).wait(5)
    assert importlib.util.find_spec("torch") is None
    assert importlib.util.find_spec("rich") is None
    command = subprocess.run(
        [Path(sys.executable).parent / "pxserve", "models"], capture_output=True, check=False
    )
    assert (command.returncode, b"pxserve[cli]" in command.stderr) == (2, True)
    found = {name: version(name) for name in ("pxserve", "protobuf", "grpcio", "numpy")}
    sys.stdout.write(f"{len(modules)} modules beside {found}\n")


if __name__ == "__main__":
    main()
