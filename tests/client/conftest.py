"""The fake server, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pxserve import Client
from tests.client.fake_server import Script, start


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def target(script: Script) -> Iterator[str]:
    server, address = start(script)
    yield address
    if script.hold is not None:
        script.hold.set()
    server.stop(None).wait(5)


@pytest.fixture
def client(target: str) -> Iterator[Client]:
    with Client(target, timeout_s=10) as opened:
        yield opened
