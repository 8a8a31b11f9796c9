"""A server process of our own: started on a free port, awaited, and ended."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pxserve import Client, PxserveError

START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 40.0


@dataclass(frozen=True)
class Running:
    """A serving process; ``start_s`` from its start until every model was ready."""

    target: str
    metrics: str
    start_s: float
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def serving(
    models: Path, listen: str = "", metrics: str = "", log: Path | None = None, flags: Sequence[str] = ()
) -> Iterator[Running]:
    """Serve a folder of packages while the block runs; RuntimeError where the server does not come up."""
    listen, metrics = listen or f"127.0.0.1:{free_port()}", metrics or f"127.0.0.1:{free_port()}"
    addresses = ["--models", str(models), "--listen", listen, "--metrics", metrics]
    command = [sys.executable, "-m", "serving", *addresses, *flags]
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("wb")) if log else None
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            wait_until_ready(listen, process)
            yield Running(listen, metrics, time.monotonic() - begun, process)
        finally:
            stop(process)


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_ready(target: str, process: subprocess.Popen[bytes]) -> None:
    """Block until every model is ready; RuntimeError with the failing model's message."""
    until = time.monotonic() + START_TIMEOUT_S
    with Client(target, timeout_s=5.0) as client:
        while time.monotonic() < until:
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with status {process.returncode} before it was ready")
            with contextlib.suppress(PxserveError):
                models = client.list_models()
                failed = [model for model in models if model.state == "failed"]
                if failed:
                    raise RuntimeError(f"{failed[0].name}: {failed[0].state_message}")
                if models and all(model.state == "ready" for model in models):
                    return
            time.sleep(0.05)
    raise RuntimeError(f"the server was not ready within {START_TIMEOUT_S} s")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Drain, then insist."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
