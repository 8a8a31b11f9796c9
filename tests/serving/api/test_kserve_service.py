"""The Open Inference Protocol beside its answers: streams, probes, metadata, the repository, access."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from serving.access.new_token import Wanted, new_token
from serving.api.inference import open_inference_pb2 as pb
from tests.serving.api.fake_models import CLOUD, DIGITS, LETTERS, models_in
from tests.serving.api.inference import SERVICE, infer, refused, request, tensor, unary
from tests.serving.api.served import Served, refusal_of
from tests.serving.api.test_streams import wait_for


def asking(served: Served, messages: Iterator[pb.ModelInferRequest]) -> Any:
    call: Any = served.channel.stream_stream(
        f"{SERVICE}ModelStreamInfer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=pb.ModelStreamInferResponse.FromString,
    )
    return call(messages, timeout=20.0)


def named(name: str, **parameters: Any) -> pb.ModelInferRequest:
    message = request(**parameters)
    message.id = name
    return message


def test_a_stream_answers_each_request_and_goes_on_after_one_that_is_wrong(served: Served) -> None:
    sent = [named(str(index), seed=index) for index in range(80)]
    sent.insert(40, named("wrong", operation="dream"))
    answers = {answer.infer_response.id: answer for answer in asking(served, iter(sent))}
    assert len(answers) == 81
    wrong = answers.pop("wrong")
    assert wrong.error_message.startswith("[INVALID_ARGUMENT] parameters.operation")
    assert not wrong.infer_response.outputs
    for name, answer in answers.items():
        alone = infer(served, request(seed=int(name)))
        assert answer.infer_response.raw_output_contents == alone.raw_output_contents


def test_a_stream_that_is_left_frees_its_rows_and_a_draining_server_answers_none(own: Served) -> None:
    own.engine.hangs = True
    hold = threading.Event()

    def sent() -> Iterator[pb.ModelInferRequest]:
        yield from (named("a"), named("b"))
        hold.wait(10.0)
        yield named("late")
        hold.wait(10.0)

    stream = asking(own, sent())
    wait_for(lambda: len(own.engine.tickets) == 2)
    ending = own.begin(own.app.shut_down())
    wait_for(lambda: not own.app._health.ready)
    hold.set()
    late = next(stream)
    assert (late.infer_response.id, late.error_message.split()[0]) == ("late", "[UNAVAILABLE]")
    stream.cancel()
    wait_for(lambda: all(ticket.cancelled for ticket in own.engine.tickets))
    ending.result(10.0)


def test_probes_tell_process_and_models(served: Served) -> None:
    assert unary(served, "ServerLive", pb.ServerLiveRequest()).live
    assert unary(served, "ServerReady", pb.ServerReadyRequest()).ready
    for name, version, ready in [
        (DIGITS, "", True),
        (DIGITS, "1", True),
        (DIGITS, "2", False),
        ("nobody", "", False),
    ]:
        assert unary(served, "ModelReady", pb.ModelReadyRequest(name=name, version=version)).ready is ready


def test_metadata_are_true_of_every_answer(served: Served) -> None:
    for model in (DIGITS, LETTERS, CLOUD):
        listed = unary(served, "ModelMetadata", pb.ModelMetadataRequest(name=model))
        config = unary(served, "ModelConfig", pb.ModelConfigRequest(name=model)).config
        assert list(listed.versions) == ["1"]
        assert [one.name for one in config.input] == [one.name for one in listed.inputs]
        assert [list(one.dims) for one in config.output] == [list(one.shape)[1:] for one in listed.outputs]
        assert all(one.optional for one in config.input)
        shapes = {(one.name, one.datatype, tuple(one.shape)) for one in listed.outputs}
        style = [tensor("style", np.zeros((1, 2), np.float32))] if model == CLOUD else []
        for output in infer(served, request(model, *style, n=2)).outputs:
            assert any(
                (name, datatype) == (output.name, output.datatype)
                and len(shape) == len(output.shape)
                and all(want in (-1, have) for want, have in zip(shape, output.shape, strict=True))
                for name, datatype, shape in shapes
            ), output.name
    assert {
        one.name for one in unary(served, "ModelMetadata", pb.ModelMetadataRequest(name=DIGITS)).inputs
    } == {
        "data",
        "observed",
        "latents",
        "start",
        "end",
        "label",
    }


def test_the_repository_is_listed_loaded_and_unloaded(own: Served) -> None:
    index = unary(own, "RepositoryIndex", pb.RepositoryIndexRequest())
    assert [(one.name, one.version, one.state) for one in index.models] == [
        (CLOUD, "1", "READY"),
        (DIGITS, "1", "READY"),
        (LETTERS, "1", "READY"),
    ]
    unary(own, "RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name=DIGITS))
    ready = unary(own, "RepositoryIndex", pb.RepositoryIndexRequest(ready=True))
    assert [one.name for one in ready.models] == [CLOUD, LETTERS]
    assert refused(own, request()).reason == "NOT_READY"
    unary(own, "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=DIGITS))
    infer(own, request())


@pytest.mark.parametrize("name", ["config", "file:1/model.onnx"])
def test_loading_takes_no_files_from_a_request(served: Served, name: str) -> None:
    message = pb.RepositoryModelLoadRequest(model_name=DIGITS)
    message.parameters[name].bytes_param = b"anything"
    with pytest.raises(grpc.RpcError) as caught:
        unary(served, "RepositoryModelLoad", message)
    assert refusal_of(caught.value).fields == (f"parameters.{name}",)


def test_tokens_and_the_address_of_administrators_hold_here_too(tmp_path: Path) -> None:
    secret, entry = new_token(Wanted("reader", ["infer"]))
    (tmp_path / "tokens.toml").write_text(entry)
    bearer = (("authorization", f"Bearer {secret}"),)
    load = pb.RepositoryModelLoadRequest(model_name=DIGITS)
    with Served(models_in(tmp_path / "a"), tokens=str(tmp_path / "tokens.toml")) as served:
        assert unary(served, "ServerReady", pb.ServerReadyRequest()).ready
        assert refused(served, request()).code is grpc.StatusCode.UNAUTHENTICATED
        infer(served, request(), bearer)
        assert served.engine.requests[-1][2].share == "reader"
        with pytest.raises(grpc.RpcError) as caught:
            unary(served, "RepositoryModelLoad", load, bearer)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.RpcError) as caught:
            next(asking(served, iter([request()])))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with Served(models_in(tmp_path / "b"), admin_listen="127.0.0.1:0") as served:
        with pytest.raises(grpc.RpcError) as caught:
            unary(served, "RepositoryModelLoad", load)
        assert refusal_of(caught.value).reason == "ADMIN_ELSEWHERE"
