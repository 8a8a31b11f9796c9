"""Streams: each row once, the summary last and without data, text in whole characters, cancellation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest

from pxserve.v1 import data_pb2, inpaint_pb2, likelihood_pb2, sample_pb2
from serving.api.convert.tensors import tensor_of
from serving.api.convert.texts import TextStream
from serving.api.streams import heartbeats
from serving.engine.messages import Advanced, Event, Failed
from serving.errors import Internal
from tests.serving.api.fake_models import DIGITS, LETTERS
from tests.serving.api.served import Served, refusal_of


def wait_for(condition: object, seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until, "did not happen"
        time.sleep(0.01)


def kinds(events: list[sample_pb2.StreamSampleResponse]) -> list[str | None]:
    return [event.WhichOneof("event") for event in events]


def test_sample_stream_sends_every_row_once_and_ends_with_a_summary(served: Served) -> None:
    asked = sample_pb2.SampleRequest(model=DIGITS, n=3, seed=7)
    request = sample_pb2.StreamSampleRequest(request=asked, preview_every_steps=5)
    events = list(served.stream("StreamSample", request))
    assert kinds(events) == ["progress", "preview", "row", "preview", "row", "row", "summary"]
    rows = [event.row for event in events if event.WhichOneof("event") == "row"]
    assert [row.row for row in rows] == [0, 1, 2]
    whole = served.call("Sample", asked).data.tensor.data
    assert b"".join(row.data.tensor.data for row in rows) == whole
    summary = events[-1].summary
    assert not summary.HasField("data")
    assert summary.provenance.seed == 7
    assert events[0].progress.queued


def test_no_previews_unless_asked_for(served: Served) -> None:
    request = sample_pb2.StreamSampleRequest(request=sample_pb2.SampleRequest(model=DIGITS, n=2))
    assert kinds(list(served.stream("StreamSample", request))) == ["progress", "row", "row", "summary"]


def test_text_stream_adds_up_to_each_rows_text(served: Served) -> None:
    asked = sample_pb2.SampleRequest(model=LETTERS, n=2, seed=3)
    events = list(served.stream("StreamSample", sample_pb2.StreamSampleRequest(request=asked)))
    texts, tokens = ["", ""], [[], []]  # type: ignore[var-annotated]
    for event in events:
        if event.WhichOneof("event") == "text":
            texts[event.text.row] += event.text.text
            tokens[event.text.row] += list(event.text.tokens)
    whole = served.call("Sample", asked).data.texts
    assert texts == list(whole.texts)
    assert tokens == np.frombuffer(whole.tokens.data, np.int32).reshape(2, -1).tolist()


def test_text_stream_begins_after_the_prompt(served: Served) -> None:
    prompt = data_pb2.Data(texts=data_pb2.Texts(texts=["hello"]))
    asked = sample_pb2.SampleRequest(model=LETTERS, seed=3, prompt=prompt)
    events = list(served.stream("StreamSample", sample_pb2.StreamSampleRequest(request=asked)))
    tokens = [token for event in events for token in event.text.tokens]
    assert len(tokens) == 32 - 5


def test_text_stream_holds_back_half_characters() -> None:
    row = np.frombuffer("aé€".encode(), np.uint8).astype(np.int32)
    stream = TextStream()
    deltas = [stream.grown(row, length)[0] for length in range(1, len(row) + 1)]
    assert deltas == ["a", "", "é", "", "", "€"]
    assert TextStream().grown(row[:2], 2, final=True)[0] == "a�"


def test_inpaint_stream_numbers_rows_times_completions(served: Served) -> None:
    data = data_pb2.Data(tensor=tensor_of(np.ones((2, 1, 8, 8), np.uint8)))
    mask = tensor_of(np.ones((8, 8), np.bool_))
    asked = inpaint_pb2.InpaintRequest(model=DIGITS, data=data, observed=mask, n=2)
    events = list(served.stream("StreamInpaint", inpaint_pb2.StreamInpaintRequest(request=asked)))
    rows = [event.row.row for event in events if event.WhichOneof("event") == "row"]
    assert rows == [0, 1, 2, 3]
    assert not events[-1].summary.HasField("data")


def test_likelihood_stream_sends_estimates_then_the_result(served: Served) -> None:
    data = data_pb2.Data(tensor=tensor_of(np.ones((2, 1, 8, 8), np.uint8)))
    asked = likelihood_pb2.LikelihoodRequest(model=DIGITS, data=data)
    events = list(served.stream("StreamLikelihood", likelihood_pb2.StreamLikelihoodRequest(request=asked)))
    assert [event.WhichOneof("event") for event in events] == ["progress", "progress", "estimate", "result"]
    assert list(events[-1].result.log_prob) == [-1.0, -2.0]


def test_validate_only_stream_is_one_summary(served: Served) -> None:
    asked = sample_pb2.SampleRequest(model=DIGITS, n=2, validate_only=True)
    events = list(served.stream("StreamSample", sample_pb2.StreamSampleRequest(request=asked)))
    assert kinds(events) == ["summary"]
    assert not served.engine.requests


def test_stream_that_fails_keeps_what_was_delivered_and_names_the_rows(served: Served) -> None:
    served.engine.failure = Failed(Internal("not finite"), np.array([1]))
    request = sample_pb2.StreamSampleRequest(request=sample_pb2.SampleRequest(model=DIGITS, n=2))
    with pytest.raises(grpc.RpcError) as caught:
        list(served.stream("StreamSample", request))
    assert refusal_of(caught.value).metadata["rows"] == "1"


@pytest.mark.parametrize(
    ("request_message", "field"),
    [
        (sample_pb2.StreamSampleRequest(), "request"),
        (
            sample_pb2.StreamSampleRequest(
                request=sample_pb2.SampleRequest(model=DIGITS), preview_every_steps=-1
            ),
            "preview_every_steps",
        ),
        (sample_pb2.StreamSampleRequest(request=sample_pb2.SampleRequest(model=DIGITS, n=0)), "n"),
    ],
)
def test_bad_stream_request_is_refused_by_field(
    served: Served, request_message: sample_pb2.StreamSampleRequest, field: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(served.stream("StreamSample", request_message))
    assert refusal_of(caught.value).fields == (field,)


@pytest.mark.parametrize("streaming", [False, True])
def test_client_that_leaves_frees_its_rows(served: Served, streaming: bool) -> None:
    served.engine.hangs = True
    asked = sample_pb2.SampleRequest(model=DIGITS)
    if streaming:
        call = served.stream("StreamSample", sample_pb2.StreamSampleRequest(request=asked))
        next(call)
    else:
        call = served.future("Sample", asked)
        wait_for(lambda: served.engine.tickets)
    call.cancel()
    wait_for(lambda: served.engine.tickets[0].cancelled)


def test_deadline_that_passes_frees_the_rows(served: Served) -> None:
    served.engine.hangs = True
    with pytest.raises(grpc.RpcError) as caught:
        served.call("Sample", sample_pb2.SampleRequest(model=DIGITS), timeout_s=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_for(lambda: served.engine.tickets[0].cancelled)


def test_silence_is_filled_with_the_last_progress() -> None:
    async def silent() -> AsyncIterator[Event]:
        yield Advanced(3, 9, 1.0, queued=False)
        await asyncio.sleep(0.05)
        yield Advanced(9, 9, 0.0, queued=False)

    async def collect() -> list[Event]:
        return [event async for event in heartbeats(silent(), silence_s=0.02)]

    events = asyncio.run(collect())
    assert len(events) >= 4
    assert all(event == events[0] for event in events[:-1])
