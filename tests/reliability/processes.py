"""Server processes that are started, killed and awaited by hand."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from deploy.demo.server import free_port
from pxserve import PxserveError
from pxserve.channel import Endpoint
from pxserve.health import ServingStatus, check

START_TIMEOUT_S = 180.0
Process = subprocess.Popen[bytes]


def launched(models: Path, port: int, log: Path, flags: Sequence[str] = ()) -> tuple[Process, str]:
    """A server that has only just been started, and where it will listen."""
    target = f"127.0.0.1:{port}"
    addresses = ["--listen", target, "--metrics", f"127.0.0.1:{free_port()}"]
    command = [sys.executable, "-m", "serving", "--models", str(models), *addresses, *flags]
    with log.open("ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=output), target


def status(target: str, service: str = "") -> ServingStatus:
    """What health says; UNKNOWN where nobody answers."""
    try:
        return check(Endpoint(target, timeout_s=2.0), service)
    except PxserveError:
        return ServingStatus.UNKNOWN


def await_status(target: str, process: Process, wanted: ServingStatus, service: str = "") -> None:
    """Block until health says so; RuntimeError where the process ends first, or time does."""
    until = time.monotonic() + START_TIMEOUT_S
    while status(target, service) is not wanted:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        if time.monotonic() > until:
            raise RuntimeError(f"the server was not {wanted.name} within {START_TIMEOUT_S} s")
        time.sleep(0.05)


def started(models: Path, port: int, log: Path, flags: Sequence[str] = ()) -> tuple[Process, str]:
    """A server that accepts work, whatever its packages are like."""
    process, target = launched(models, port, log, flags)
    try:
        await_status(target, process, ServingStatus.SERVING)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process, target


@contextlib.contextmanager
def stopped(process: Process) -> Iterator[None]:
    """End it when the block does."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(40.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
