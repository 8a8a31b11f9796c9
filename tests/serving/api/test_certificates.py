"""Certificates change while the server serves: no call fails, new connections see the new ones."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from pxserve.v1 import sample_pb2
from serving.config import ConfigError
from tests.serving.api.fake_models import DIGITS, models_in
from tests.serving.api.served import Served
from tests.serving.api.test_streams import wait_for

KEYS = Path(__file__).parent / "tls"  # made for these tests; they protect nothing
NEXT = KEYS / "next"  # of another authority
SAMPLE = sample_pb2.SampleRequest(model=DIGITS).SerializeToString()
PATH = "/pxserve.v1.GenerativeService/Sample"
ALONE = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own, also where another one is open


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Certificates as an operator has them: one folder, replaced in place."""
    target = tmp_path / "secret"
    target.mkdir()
    for name in ("ca.pem", "server.pem", "server.key"):
        shutil.copy(KEYS / name, target)
    return target


@pytest.fixture
def served(folder: Path, tmp_path: Path) -> Iterator[Served]:
    pair = {"tls_cert": str(folder / "server.pem"), "tls_key": str(folder / "server.key")}
    with Served(models_in(tmp_path / "models"), **pair) as it:
        yield it


def connected(served: Served, trusted: Path, port: int = 0, client: bool = False) -> grpc.Channel:
    pair = [(KEYS / name).read_bytes() for name in ("client.key", "client.pem")] if client else []
    credentials = grpc.ssl_channel_credentials((trusted / "ca.pem").read_bytes(), *pair)
    return grpc.secure_channel(f"127.0.0.1:{port or served.app.port}", credentials, ALONE)


def trusts(served: Served, trusted: Path, port: int = 0, client: bool = False) -> bool:
    """Whether a new connection that trusts this authority alone is served."""
    with connected(served, trusted, port, client) as channel:
        return code_of(channel) is None


def code_of(channel: grpc.Channel) -> grpc.StatusCode | None:
    """How a request is refused; None where it is answered."""
    call: Any = channel.unary_unary(PATH)
    try:
        call(SAMPLE, timeout=5.0)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return None


class Traffic:
    """Calls without a pause over one open connection; remembers how many ended how."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.answered, self.failures = 0, list[Exception]()
        self._call: Any = channel.unary_unary(PATH)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def goes_on(self) -> None:
        """Until ten more calls were answered."""
        until = self.answered + 10
        wait_for(lambda: self.answered >= until or self.failures)
        assert not self.failures

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._call(SAMPLE, timeout=5.0)
                self.answered += 1
            except grpc.RpcError as error:
                self.failures.append(error)


def test_new_connections_see_the_new_certificate_and_open_ones_go_on(served: Served, folder: Path) -> None:
    assert (trusts(served, KEYS), trusts(served, NEXT)) == (True, False)
    with connected(served, KEYS) as channel, Traffic(channel) as traffic:
        traffic.goes_on()
        for name in ("server.key", "server.pem"):  # one after the other, as copying does it
            shutil.copy(NEXT / name, folder)
            traffic.goes_on()
        assert (trusts(served, KEYS), trusts(served, NEXT)) == (False, True)
        traffic.goes_on()


@pytest.mark.parametrize("broken", ["no certificate at all", "", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_broken_certificate_leaves_the_old_one_in_place_and_is_logged(
    served: Served, folder: Path, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    (folder / "server.pem").write_text(broken)
    wait_for(lambda: "kept the old certificates" in caplog.text)
    assert trusts(served, KEYS)
    (folder / "server.pem").unlink()
    assert trusts(served, KEYS)
    shutil.copy(KEYS / "server.pem", folder)
    assert trusts(served, KEYS)


def test_a_certificate_without_its_key_is_not_taken(
    served: Served, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(NEXT / "server.pem", folder)
    wait_for(lambda: "kept the old certificates" in caplog.text)
    assert (trusts(served, KEYS), trusts(served, NEXT)) == (True, False)


def test_authorities_of_clients_are_replaced_too_at_every_address(folder: Path, tmp_path: Path) -> None:
    pair = {"tls_cert": str(folder / "server.pem"), "tls_key": str(folder / "server.key")}
    settings = {**pair, "tls_client_ca": str(folder / "ca.pem"), "admin_listen": "127.0.0.1:0"}
    with Served(models_in(tmp_path / "models"), **settings) as served:
        assert (trusts(served, KEYS, client=True), trusts(served, KEYS)) == (True, False)
        shutil.copy(NEXT / "ca.pem", folder)  # the client's certificate is not of this one
        assert not trusts(served, KEYS, client=True)
        with connected(served, KEYS, served.app.admin_port, client=True) as channel:
            assert code_of(channel) is grpc.StatusCode.UNAVAILABLE
        shutil.copy(KEYS / "ca.pem", folder)
        with connected(served, KEYS, served.app.admin_port, client=True) as channel:
            assert code_of(channel) is grpc.StatusCode.UNIMPLEMENTED  # let in: questions are asked elsewhere


@pytest.mark.parametrize("name", ["server.pem", "server.key"])
def test_a_broken_certificate_stops_the_start_and_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).write_text("broken")
    pair = {"tls_cert": str(folder / "server.pem"), "tls_key": str(folder / "server.key")}
    served = Served(models_in(tmp_path / "models"), **pair)
    with pytest.raises(ConfigError, match=r"server\.pem"):
        served.begin_only()
    served.abandon()


def test_a_key_that_grpc_cannot_use_stops_the_start_instead_of_every_handshake(tmp_path: Path) -> None:
    folder = KEYS / "edwards"
    pair = {"tls_cert": str(folder / "server.pem"), "tls_key": str(folder / "server.key")}
    served = Served(models_in(tmp_path / "models"), **pair)
    with pytest.raises(ConfigError, match=r"Ed25519, which gRPC's TLS does not take; use ECDSA or RSA"):
        served.begin_only()
    served.abandon()
