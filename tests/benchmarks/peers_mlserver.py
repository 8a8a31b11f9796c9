"""MLServer around the pipeline: its runtime, and the folder and environment that it starts from."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

ENVIRONMENT = Path("build/peers/mlserver")
REQUIREMENTS = (
    "mlserver==1.7.1",
    "uvloop<0.22",
)  # its ranges do not fit ours; later uvloops break its workers
SETTINGS = Path("build/peers/mlserver-models")


def runtime() -> type[Any]:
    """The class that MLServer loads; made here, since only its own environment has the library."""
    mlserver: Any = import_module("mlserver")
    codec: Any = import_module("mlserver.codecs").NumpyCodec
    from tests.benchmarks.peers_pipeline import Pipeline

    class Digits(mlserver.MLModel):  # type: ignore[misc]
        """Requests are gathered by MLServer's adaptive batching."""

        async def load(self) -> bool:
            """Once in a worker."""
            self.pipeline = Pipeline()
            return True

        async def predict(self, payload: Any) -> Any:
            """All rows at once."""
            noise, label = (codec.decode_input(tensor) for tensor in payload.inputs)
            rows = noise.reshape(-1, 1, 8, 8).astype(np.float32)
            levels = self.pipeline(rows, label.reshape(-1).astype(np.int64))
            output = codec.encode_output("levels", levels.reshape(len(levels), -1))
            return mlserver.types.InferenceResponse(model_name=self.name, outputs=[output])

    return Digits


def __getattr__(name: str) -> type[Any]:
    if name == "Digits":
        return runtime()
    raise AttributeError(name)


def environment() -> Path:
    """Its python; the environment is made at the first use, outside the tree's own (CalledProcessError)."""
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / ".ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True, capture_output=True)
        install = [str(python), "-m", "pip", "install", "-q", *REQUIREMENTS]
        subprocess.run(install, check=True, capture_output=True, timeout=600)
        (site,) = (ENVIRONMENT / "lib").glob("python*/site-packages")
        (site / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")  # torch, diffusers
        (ENVIRONMENT / ".ready").touch()
    return python


def folder(port: int, grpc_port: int, metrics_port: int, batch: int, wait_s: float) -> Path:
    """A folder to start it from."""
    SETTINGS.mkdir(parents=True, exist_ok=True)
    server = {"http_port": port, "grpc_port": grpc_port, "metrics_port": metrics_port, "host": "127.0.0.1",
              "parallel_workers": 1, "debug": False}  # fmt: skip
    model = {"name": "digits", "implementation": "tests.benchmarks.peers_mlserver.Digits",
             "max_batch_size": batch, "max_batch_time": wait_s}  # fmt: skip
    (SETTINGS / "settings.json").write_text(json.dumps(server))
    (SETTINGS / "model-settings.json").write_text(json.dumps(model))
    return SETTINGS
