"""Transport security: the server's certificate, and clients that must present one."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from pxserve.v1 import sample_pb2
from serving.config import ConfigError
from tests.serving.api.fake_models import DIGITS, models_in
from tests.serving.api.served import Served

KEYS = Path(__file__).parent / "tls"  # made for these tests; they protect nothing
SERVER = {"tls_cert": str(KEYS / "server.pem"), "tls_key": str(KEYS / "server.key")}
SAMPLE = sample_pb2.SampleRequest(model=DIGITS)


def credentials(client: bool) -> grpc.ChannelCredentials:
    root = (KEYS / "ca.pem").read_bytes()
    if not client:
        return grpc.ssl_channel_credentials(root)
    pair = ((KEYS / "client.key").read_bytes(), (KEYS / "client.pem").read_bytes())
    return grpc.ssl_channel_credentials(root, *pair)


def ask(served: Served, secured: grpc.ChannelCredentials | None) -> None:
    address = f"127.0.0.1:{served.app.port}"
    served.channel.close()
    served.channel = grpc.secure_channel(address, secured) if secured else grpc.insecure_channel(address)
    served.call("Sample", SAMPLE, timeout_s=3.0)


def test_client_that_trusts_the_authority_is_served_and_plain_text_is_not(tmp_path: Path) -> None:
    with Served(models_in(tmp_path / "models"), **SERVER) as served:
        ask(served, credentials(client=False))
        with pytest.raises(grpc.RpcError) as caught:
            ask(served, None)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_client_without_a_certificate_is_turned_away_where_one_is_demanded(tmp_path: Path) -> None:
    settings = {**SERVER, "tls_client_ca": str(KEYS / "ca.pem")}
    with Served(models_in(tmp_path / "models"), **settings) as served:
        ask(served, credentials(client=True))
        with pytest.raises(grpc.RpcError) as caught:
            ask(served, credentials(client=False))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_missing_certificate_file_is_a_config_error(tmp_path: Path) -> None:
    settings = {**SERVER, "tls_cert": str(tmp_path / "none.pem")}
    served = Served(models_in(tmp_path / "models"), **settings)
    with pytest.raises(ConfigError, match=r"none\.pem"):
        served.begin_only()
    served.abandon()
