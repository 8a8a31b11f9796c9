"""The Open Inference Protocol: what is wrong is refused by name, and nothing is ignored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
import pytest

from serving.api.convert.infer_tensors import MAX_TYPED
from serving.api.inference import open_inference_pb2 as pb
from serving.errors import DeadlineExceeded
from tests.serving.api.fake_models import CLOUD, DIGITS, LETTERS
from tests.serving.api.inference import ROWS, SERVICE, infer, refused, request, tensor
from tests.serving.api.served import Served
from tests.serving.api.test_streams import wait_for


def with_parameters(one: Any, name: str) -> pb.ModelInferRequest:
    message = request(DIGITS, one, operation="likelihood")
    message.inputs[0].parameters[name].int64_param = 1
    return message


def edited(message: pb.ModelInferRequest, **changes: Any) -> pb.ModelInferRequest:
    for name, value in changes.items():
        setattr(message.inputs[0], name, value)
    return message


def reshaped(shape: Sequence[int]) -> pb.ModelInferRequest:
    message = request(DIGITS, tensor("data", ROWS), operation="likelihood")
    message.inputs[0].shape[:] = shape
    return message


def contents(datatype: str, count: int, **typed: list[Any]) -> pb.ModelInferRequest:
    message = request(operation="likelihood")
    one = message.inputs.add(name="data", datatype=datatype, shape=[count, 1, 8, 8])
    for name, values in typed.items():
        getattr(one.contents, name).extend(values)
    return message


SCORE = {"operation": "likelihood"}
DATA = tensor("data", ROWS)
STYLE = tensor("style", np.zeros((1, 2), np.float32))
WRONG = {
    "unknown operation": (request(operation="dream"), "parameters.operation"),
    "operation of another type": (request(operation=1), "parameters.operation"),
    "unknown parameter": (request(speed=3), "parameters.speed"),
    "parameter of another operation": (request(DIGITS, DATA, n=2, **SCORE), "parameters.n"),
    "parameter without a value": (request(), "parameters.steps"),
    "parameter of the wrong type": (request(steps="ten"), "parameters.steps"),
    "parameter beyond 32 bits": (request(steps=2**40), "parameters.steps"),
    "negative seed": (request(seed=-1), "parameters.seed"),
    "seed of another type": (request(seed=1.5), "parameters.seed"),
    "no rows": (request(n=0), "n"),
    "sampler of another type": (request(sampler=3), "parameters.sampler"),
    "unknown sampler": (request(sampler="magic"), "parameters.sampler"),
    "class out of range": (request(label=11), "conditions[0].labels"),
    "class of another type": (request(label="three"), "parameters.label"),
    "label of a model without classes": (request(LETTERS, label=1), "parameters.label"),
    "priority of triton": (request(priority=1), "parameters.priority"),
    "sequence of triton": (request(sequence_id=1), "parameters.sequence_id"),
    "unknown encoding": (request(encoding="jpeg"), "parameters.encoding"),
    "png of a model without pictures": (
        request(CLOUD, tensor("style", np.zeros((1, 2), np.float32)), encoding="png"),
        "encoding",
    ),
    "flag of another type": (request(validate_only="yes"), "parameters.validate_only"),
    "prompt of a model without one": (request(prompt="a"), "parameters.prompt.texts"),
    "prompt twice": (request(LETTERS, tensor("prompt", [b"a"]), prompt="a"), "parameters.prompt"),
    "stop twice": (request(LETTERS, tensor("stop", [b"a"]), stop="a"), "parameters.stop"),
    "class twice": (request(DIGITS, tensor("label", np.array([1])), label=1), "parameters.label"),
    "input of another operation": (request(DIGITS, DATA), "inputs[data]"),
    "unknown input": (request(DIGITS, DATA, tensor("x", ROWS), **SCORE), "inputs[x]"),
    "input twice": (request(DIGITS, DATA, DATA, **SCORE), "inputs[data]"),
    "no input": (request(**SCORE), "data"),
    "input parameters": (with_parameters(DATA, "shared_memory_region"), "inputs[data].parameters"),
    "unknown datatype": (
        edited(request(DIGITS, DATA, **SCORE), datatype="FP8"),
        "inputs[data].datatype",
    ),
    "floats for levels": (
        request(DIGITS, tensor("data", ROWS.astype(np.float32)), **SCORE),
        "inputs[data].datatype",
    ),
    "too many bytes": (reshaped([2, 1, 8, 8]), "inputs[data]"),
    "negative axis": (reshaped([-1, 1, 8, 8]), "inputs[data].shape"),
    "many axes": (reshaped([1] * 9), "inputs[data].shape"),
    "another shape": (reshaped([3, 64]), "inputs[data].shape"),
    "level out of range": (request(DIGITS, tensor("data", ROWS + 200), **SCORE), "data"),
    "mask that is no bool": (
        request(DIGITS, DATA, tensor("observed", np.ones((8, 8), np.uint8)), operation="inpaint"),
        "inputs[observed].datatype",
    ),
    "infinite latent": (
        request(DIGITS, tensor("latents", np.full((1, 4), np.inf, np.float32)), operation="decode"),
        "latents.data",
    ),
    "raw for some inputs": (request(DIGITS, DATA, **SCORE), "raw_input_contents"),
    "raw and typed": (request(DIGITS, DATA, **SCORE), "inputs[data].contents"),
    "contents of another type": (contents("UINT8", 1, fp32_contents=[0.0] * 64), "inputs[data].contents"),
    "contents that are too few": (contents("UINT8", 1, uint_contents=[0] * 63), "inputs[data].contents"),
    "contents out of range": (contents("UINT8", 1, uint_contents=[256] * 64), "inputs[data]"),
    "contents claimed": (contents("UINT8", MAX_TYPED), "inputs[data].contents"),
    "half floats as contents": (contents("FP16", 1, fp32_contents=[0.0] * 64), "inputs[data].datatype"),
    "broken strings": (
        edited(request(LETTERS, tensor("data", [b"abc"]), **SCORE), datatype="BYTES"),
        "inputs[data]",
    ),
    "text that is no text": (request(LETTERS, tensor("data", [b"\xff"]), **SCORE), "inputs[data]"),
    "picture that is none": (
        request(DIGITS, tensor("data", [b"GIF89a"]), **SCORE),
        "inputs[data].images.png[0]",
    ),
    "unknown output": (request(outputs=["dream"]), "outputs[dream]"),
    "output without its flag": (
        request(DIGITS, DATA, outputs=["log_prob_map"], **SCORE),
        "outputs[log_prob_map]",
    ),
    "output that this answer lacks": (
        request(DIGITS, DATA, outputs=["standard_error"], **SCORE),
        "outputs[standard_error]",
    ),
}
WRONG["parameter without a value"][0].parameters["steps"].SetInParent()
WRONG["broken strings"][0].raw_input_contents[0] = b"\x09\x00\x00\x00abc"
del WRONG["raw for some inputs"][0].raw_input_contents[:]
WRONG["raw for some inputs"][0].raw_input_contents.extend([b"a", b"b"])
WRONG["raw and typed"][0].inputs[0].contents.uint_contents.append(1)


@pytest.mark.parametrize(("message", "field"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_refused_by_name_and_nothing_is_ignored(
    served: Served, message: pb.ModelInferRequest, field: str
) -> None:
    answer = refused(served, message)
    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert answer.fields == (field,)
    infer(served, request(n=1, seed=1))


def test_other_refusals_are_those_of_the_typed_api(served: Served) -> None:
    assert refused(served, request("nobody")).reason == "MODEL_NOT_FOUND"
    answer = refused(served, request(CLOUD, operation="likelihood"))
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "OPERATION_UNDEFINED")
    message = request()
    message.model_version = "9"
    assert refused(served, message).code is grpc.StatusCode.NOT_FOUND
    message.model_version = "one"
    assert refused(served, message).fields == ("model_version",)
    served.engine.refusal = DeadlineExceeded("late", reason="DEADLINE_INFEASIBLE")
    assert refused(served, request()).reason == "DEADLINE_INFEASIBLE"


def test_a_timeout_in_microseconds_is_a_deadline(served: Served) -> None:
    infer(served, request(timeout=1_500_000))
    infer(served, request())
    (_, _, bounded), (_, _, free) = served.engine.requests
    assert bounded.deadline_s is not None
    assert free.deadline_s is not None
    assert 1.0 < bounded.deadline_s <= 1.5 < free.deadline_s


def test_cancelling_frees_the_rows(served: Served) -> None:
    served.engine.hangs = True
    call: Any = served.channel.unary_unary(f"{SERVICE}ModelInfer")
    running = call.future(request().SerializeToString())
    wait_for(lambda: served.engine.tickets)
    running.cancel()
    wait_for(lambda: served.engine.tickets[0].cancelled)


def test_requests_are_counted_under_their_operation(served: Served) -> None:
    from prometheus_client import generate_latest

    infer(served, request(DIGITS, DATA, **SCORE))
    refused(served, request(operation="dream"))
    text = generate_latest(served.metrics.registry).decode()
    assert 'operation="likelihood"' in text
    assert 'operation="model_infer"' in text
