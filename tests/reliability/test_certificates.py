"""Certificates are replaced again and again while a server answers: no call fails, new connections see them.

Short versions, broken files and authorities of clients: tests/serving/api/test_certificates.py.
"""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from deploy.demo.server import free_port
from pxserve.v1 import sample_pb2
from tests.reliability.observed import await_true
from tests.reliability.processes import launched, stopped
from tests.reliability.record import Figure, Record

pytestmark = [pytest.mark.reliability, pytest.mark.xdist_group("reliability"), pytest.mark.timeout(300)]

KEYS = Path(__file__).parents[1] / "serving" / "api" / "tls"  # made for tests; they protect nothing
PAIRS = (KEYS, KEYS / "next")  # of two authorities
PATH = "/pxserve.v1.GenerativeService/Sample"
SAMPLE = sample_pb2.SampleRequest(model="digits-gan", seed=1).SerializeToString()
ALONE = [("grpc.use_local_subchannel_pool", 1)]
ROTATIONS, PAUSE_S = 40, 0.2
START_S, SEEN_S = 120.0, 20.0


class Secured:
    """A server with certificates in a folder."""

    def __init__(self, target: str, folder: Path) -> None:
        self.target, self.folder = target, folder

    def connected(self, trusted: Path) -> grpc.Channel:
        """A channel of its own that trusts one authority."""
        root = grpc.ssl_channel_credentials((trusted / "ca.pem").read_bytes())
        return grpc.secure_channel(self.target, root, ALONE)

    def opened(self, trusted: Path) -> grpc.Channel:
        """The same, connected."""
        channel = self.connected(trusted)
        grpc.channel_ready_future(channel).result(timeout=SEEN_S)
        return channel

    def trusts(self, trusted: Path) -> bool:
        """Whether a new connection that trusts this authority alone is answered."""
        with self.connected(trusted) as channel:
            try:
                call: Any = channel.unary_unary(PATH)
                call(SAMPLE, timeout=5.0)
            except grpc.RpcError:
                return False
            return True

    def rotate(self, to: Path) -> float:
        """Replace the files; seconds until a new connection sees them."""
        for name in ("server.key", "server.pem"):  # one after the other, as copying does it
            shutil.copy(to / name, self.folder)
        begun_s = time.monotonic()
        assert await_true(lambda: self.trusts(to), SEEN_S)
        return time.monotonic() - begun_s


@pytest.fixture
def secured(models: Path, tmp_path: Path) -> Iterator[Secured]:
    folder, served = tmp_path / "secret", tmp_path / "models"
    folder.mkdir()
    served.mkdir()
    (served / "digits-gan").symlink_to(models / "digits-gan")
    for name in ("server.key", "server.pem"):
        shutil.copy(KEYS / name, folder)
    flags = ("--tls-cert", str(folder / "server.pem"), "--tls-key", str(folder / "server.key"))
    process, target = launched(served, free_port(), tmp_path / "log", flags)
    with stopped(process):
        it = Secured(target, folder)
        assert await_true(lambda: it.trusts(KEYS), START_S)
        yield it


class Callers:
    """Two callers without a pause, each over a connection that is open from the beginning to the end."""

    def __init__(self, channels: list[grpc.Channel]) -> None:
        self.answered, self.failed = itertools.count(), list[grpc.RpcError]()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(channel,)) for channel in channels]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, channel: grpc.Channel) -> None:
        call: Any = channel.unary_unary(PATH)
        while not self._stop.is_set():
            try:
                call(SAMPLE, timeout=10.0)
                next(self.answered)
            except grpc.RpcError as error:
                self.failed.append(error)


def test_certificates_are_replaced_under_fire(secured: Secured, record: Record) -> None:
    seen_s, strangers = [], 0
    with secured.opened(KEYS) as one, secured.opened(KEYS) as two, Callers([one, two]) as callers:
        for rotation in range(ROTATIONS):
            now, before = PAIRS[(rotation + 1) % 2], PAIRS[rotation % 2]
            seen_s.append(secured.rotate(now))
            strangers += secured.trusts(before)
            time.sleep(PAUSE_S)
    answered = next(callers.answered)
    record(
        "Certificates replaced under fire",
        [
            Figure("certificates replaced", ROTATIONS),
            Figure("calls answered over connections that were open all the time", answered, "", 1000),
            Figure("calls failed", len(callers.failed), "", 0, "at most"),
            Figure("new connections that saw an old certificate afterwards", strangers, "", 0, "at most"),
            Figure("until a new connection saw the new one, median", float(np.median(seen_s)), "s"),
            Figure("the same, at most", max(seen_s), "s", 2.0, "at most"),
        ],
        "Two callers ask digits-gan without a pause; key and certificate are replaced by those of another "
        "authority and back.",
    )
