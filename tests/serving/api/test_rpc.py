"""What becomes of a call whose answer cannot be sent any more."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import grpc.aio
import pytest

from serving.api.rpc import Call, Rpc
from serving.telemetry.calls import Ended


def test_a_write_to_a_caller_who_is_gone_counts_as_cancelled() -> None:
    told: list[Ended] = []
    nothing: Any = lambda *_: None  # noqa: E731
    calls: Any = SimpleNamespace(begin=nothing, leave=nothing, add=told.append)
    door: Any = SimpleNamespace(gate=SimpleNamespace(enter=nothing, leave=nothing))

    async def work(call: Call) -> None:
        raise grpc.aio.InternalError("execute_batch failed")

    outer = Call("stream_sample", request_id="a", begun_s=0.0)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(Rpc(calls, door, 1.0).within(outer, "stream_sample", work))
    assert [(ended.code, ended.reason) for ended in told] == [("CANCELLED", "CANCELLED")]
