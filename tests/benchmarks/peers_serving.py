"""One image each for many clients: our server beside LitServe and MLServer, all around the same network."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.demo.server import free_port, serving, stop
from kernels.philox import STREAM_INITIAL, philox_normal
from pxserve import Client
from tests.benchmarks.figures import Figure
from tests.benchmarks.gpt2 import interleaved
from tests.benchmarks.peers_mlserver import environment, folder
from tests.benchmarks.peers_pipeline import BATCH, NAME, PACKAGE, STEPS, WAIT_S, Levels, Pipeline

TITLE = "Servers around the digits diffusion model"
NOTE = (
    "DDIM, 50 steps, clipped, one image a request over keep-alive connections; the others gather up to 16 "
    "requests for 5 ms around a diffusers scheduler in eager torch float32, two threads each; outputs are "
    "the same images (at least 99 % of the pixels equal, none off by more than a level). Medians of the "
    "ratio within interleaved rounds; idle servers stay up."
)
CLIENTS = {1: 4, 16: 2}  # requests of each in a round
START_S, PIXELS = 60.0, 64
REPOSITORY = Path("build/peers/models")
Ask = Callable[[int], Levels]
"""A seed to the levels of one image, [64]."""


def run() -> list[Figure]:
    """Images a second, ours over each of theirs."""
    with contextlib.ExitStack() as stack:
        askers: dict[str, Ask] = {"ours": stack.enter_context(ours())}
        absent: dict[str, str] = {}
        for name, start in (("LitServe", litserve), ("MLServer", mlserver)):
            try:
                askers[name] = stack.enter_context(start())
            except (RuntimeError, subprocess.SubprocessError, OSError) as error:
                absent[name] = f"{name} is absent: {error}"
        check(askers)
        figures = [figure for clients, each in CLIENTS.items() for figure in compared(askers, clients, each)]
    return figures + [
        Figure(TITLE, f"{name}: absent", float("nan"), note=why) for name, why in absent.items()
    ]


def compared(askers: Mapping[str, Ask], clients: int, each: int) -> list[Figure]:
    """Rates with so many clients, each with one request at a time."""
    with ThreadPoolExecutor(clients) as pool:
        seeds = range(clients * each)
        work = {name: lambda ask=ask: list(pool.map(ask, seeds)) for name, ask in askers.items()}
        taken = interleaved(work)
    mine, label = taken.pop("ours"), f"{clients} client{'s' if clients > 1 else ''}"
    rate = float(np.median(len(seeds) / mine))
    figures = [Figure(TITLE, f"{label}: ours", rate, unit="images/s", note=NOTE)]
    for name, seconds in taken.items():
        ratio = float(np.median(seconds / mine))
        figures.append(Figure(TITLE, f"{label}: over {name}", ratio, 1.0, "at least", "x", NOTE))
    return figures


def check(askers: Mapping[str, Ask]) -> None:
    """The same images from all; AssertionError otherwise."""
    wanted = Pipeline()(np.stack([noise(s).reshape(1, 8, 8) for s in range(8)]), labels(range(8)))
    for name, ask in askers.items():
        found = np.stack([ask(seed) for seed in range(8)]).astype(int)
        off = np.abs(found - wanted.reshape(8, PIXELS).astype(int))
        assert off.max() <= 1, f"{name}: a pixel is {off.max()} levels off"
        assert (off == 0).mean() > 0.99, f"{name}: {(off == 0).mean():.1%} of the pixels are equal"


def noise(seed: int) -> NDArray[np.float32]:
    """What our server starts from: unit normals of stream 0, row 0, line 0."""
    word = torch.tensor([seed])
    zero = torch.zeros(1, dtype=torch.int64)
    found: NDArray[np.float32] = philox_normal(word, zero, zero, zero + STREAM_INITIAL, PIXELS).numpy()[0]
    return found


def labels(seeds: range) -> NDArray[np.int64]:
    """Classes in turn."""
    return np.array([seed % 10 for seed in seeds], np.int64)


@contextlib.contextmanager
def ours() -> Iterator[Ask]:
    """Our server with this model alone."""
    if not (REPOSITORY / NAME).exists():
        shutil.copytree(PACKAGE.parent, REPOSITORY / NAME)
    with serving(REPOSITORY, log=Path("build/peers/ours.log")) as running, Client(running.target) as client:

        def ask(seed: int) -> Levels:
            found = client.sample(NAME, 1, label=seed % 10, seed=seed, sampler="ddim", steps=STEPS)
            return np.asarray(found.data, np.uint8).reshape(PIXELS)

        yield ask


@contextlib.contextmanager
def litserve() -> Iterator[Ask]:
    """LitServe in a process of its own."""
    if find_spec("litserve") is None:
        raise RuntimeError("it is not installed (pip install 'pxserve-server[bench]')")
    port = free_port()
    command = [sys.executable, "-m", "tests.benchmarks.peers_litserve", str(port)]

    def body(seed: int) -> dict[str, object]:
        return {"noise": noise(seed).tolist(), "label": seed % 10}

    with process(command, Path("build/peers/litserve.log")):
        yield over_http(port, "/predict", body, lambda reply: reply["levels"])


@contextlib.contextmanager
def mlserver() -> Iterator[Ask]:
    """MLServer in an environment and a process of its own."""
    python, port = environment().absolute(), free_port()
    start = str(python.with_name("mlserver"))
    at = folder(port, free_port(), free_port(), BATCH, WAIT_S)

    def body(seed: int) -> dict[str, object]:
        given = {"name": "noise", "shape": [1, PIXELS], "datatype": "FP32", "data": noise(seed).tolist()}
        label = {"name": "label", "shape": [1, 1], "datatype": "INT64", "data": [seed % 10]}
        return {"inputs": [given, label]}

    with process([start, "start", str(at)], Path("build/peers/mlserver.log")):
        yield over_http(port, "/v2/models/digits/infer", body, lambda reply: reply["outputs"][0]["data"])


@contextlib.contextmanager
def process(command: list[str], log: Path) -> Iterator[None]:
    """A server that is ended afterwards, with the workers that it started."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(Path.cwd() / "client")])}
    with log.open("wb") as output:
        started = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, start_new_session=True
        )
        try:
            yield
        finally:
            stop(started)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)


class OverHttp:
    """Requests in JSON over one connection a thread, opened again where the server closed it."""

    def __init__(
        self, port: int, path: str, body: Callable[[int], object], levels: Callable[[Any], object]
    ) -> None:
        self._port, self._path, self._body, self._levels = port, path, body, levels
        self._local = threading.local()

    def __call__(self, seed: int) -> Levels:
        """See Ask; RuntimeError where the server refuses."""
        text = json.dumps(self._body(seed))
        try:
            answer = self._sent(text)
        except (ConnectionError, http.client.HTTPException):
            self._local.connection = None
            answer = self._sent(text)
        found: Levels = np.asarray(self._levels(json.loads(answer)), np.uint8).reshape(PIXELS)
        return found

    def _sent(self, text: str) -> bytes:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            self._local.connection = connection
        connection.request("POST", self._path, text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{self._path}: {answer.status} {content[:200]!r}")
        return content


def over_http(port: int, path: str, body: Callable[[int], object], levels: Callable[[Any], object]) -> Ask:
    """As soon as the server answers; RuntimeError where it does not."""
    ask, until = OverHttp(port, path, body, levels), time.monotonic() + START_S
    while True:
        try:
            ask(0)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            if time.monotonic() > until:
                raise RuntimeError(f"it did not answer within {START_S:.0f} s ({error})") from error
            time.sleep(0.5)
        else:
            return ask
