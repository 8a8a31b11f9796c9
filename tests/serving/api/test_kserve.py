"""The Open Inference Protocol: the answers of the typed API, in its words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pxserve.v1 import data_pb2, inpaint_pb2, likelihood_pb2, sample_pb2
from serving.api.convert.images import pngs_of, raster_of
from serving.api.convert.tensors import tensor_of
from serving.api.inference import open_inference_pb2 as pb
from tests.serving.api.fake_models import CLOUD, DIGITS, LETTERS, SPECS
from tests.serving.api.inference import ROWS, UPPER, facts, infer, outputs, refused, request, tensor
from tests.serving.api.served import Served


def test_sampling_needs_no_tensor_and_gives_the_typed_apis_rows(served: Served) -> None:
    response = infer(served, request(n=3, seed=7, label=3, steps=20, guidance_scale=2.0, sampler="ddpm"))
    typed = served.call("Sample", sample_pb2.SampleRequest(model=DIGITS, n=3, seed=7))
    data = outputs(response)["data"]
    assert (data.dtype, data.shape) == (np.uint8, (3, 1, 8, 8))
    assert data.tobytes() == typed.data.tensor.data
    asked = served.engine.requests[0][1]
    assert (asked.method, asked.rows, asked.seed) == ("ddpm", 3, 7)
    assert asked.parameters == {"steps": 20, "guidance_scale": 2.0, "eta": 1.0}
    assert asked.conditions["label"].tolist() == [3, 3, 3]
    assert (response.model_name, response.model_version) == (DIGITS, "1")


def test_the_response_says_what_it_is_and_where_it_came_from(served: Served) -> None:
    message = request(n=2, seed=2**62, steps=5)
    message.id = "mine"
    response = infer(served, message)
    said = facts(response)
    assert response.id == said["request_id"] == "mine"
    assert (said["kind"], said["method"], said["family"]) == ("exact", "ddim", "vae")
    assert (said["seed"], said["parameters.steps"], said["parameters.guidance_scale"]) == (2**62, 5, 1.0)
    assert said["package_digest"] == "d" * 64
    assert said["determinism"] == "batch_invariant"
    assert said["network_evaluations"] == 20


def test_a_seed_beyond_signed_integers_travels_both_ways(served: Served) -> None:
    message = request()
    message.parameters["seed"].uint64_param = 2**64 - 1
    assert facts(infer(served, message))["seed"] == 2**64 - 1
    assert served.engine.requests[0][1].seed == 2**64 - 1


def test_likelihoods_and_their_terms_are_outputs(served: Served) -> None:
    response = infer(served, request(DIGITS, tensor("data", ROWS), operation="likelihood", seed=1))
    found = outputs(response)
    typed = served.call(
        "Likelihood",
        likelihood_pb2.LikelihoodRequest(model=DIGITS, data=data_pb2.Data(tensor=tensor_of(ROWS))),
    )
    np.testing.assert_array_equal(found["log_prob"], typed.log_prob)
    np.testing.assert_array_equal(found["bits_per_dim"], typed.bits_per_dim)
    assert found["scored_dims"].tolist() == [64] * 3
    assert {"terms.prior", "terms.decoder"} <= set(found)
    said = facts(response)
    assert (said["kind"], said["target"], said["base_measure"]) == ("exact", "model", "counting")
    assert said["dequantization"] == "uniform"


def test_completions_keep_what_was_given(served: Served) -> None:
    inputs = tensor("data", ROWS), tensor("observed", UPPER)
    found = outputs(infer(served, request(DIGITS, *inputs, operation="inpaint", n=2, seed=5)))
    typed = served.call(
        "Inpaint",
        inpaint_pb2.InpaintRequest(
            model=DIGITS,
            n=2,
            seed=5,
            data=data_pb2.Data(tensor=tensor_of(ROWS)),
            observed=tensor_of(UPPER),
        ),
    )
    assert found["data"].shape == (3, 2, 1, 8, 8)
    assert found["data"].tobytes() == typed.data.tensor.data
    np.testing.assert_array_equal(found["data"][:, 1, 0, :4], ROWS[:, 0, :4])


@pytest.mark.parametrize(
    ("operation", "inputs", "parameters", "shapes"),
    [
        ("score_anomaly", {"data": ROWS}, {"score_map": True}, {"score": (3,), "p_value": (3,)}),
        ("encode", {"data": ROWS}, {"round_trip": True}, {"latents": (3, 4), "round_trip_error": (3,)}),
        ("decode", {"latents": np.zeros((2, 4), np.float32)}, {}, {"data": (2, 1, 8, 8)}),
        ("reconstruct", {"data": ROWS}, {}, {"data": (3, 1, 8, 8), "error": (3,)}),
        ("interpolate", {"start": ROWS[:1], "end": ROWS[1:2]}, {"points": 5}, {"data": (1, 5, 1, 8, 8)}),
    ],
)
def test_every_other_operation_takes_and_gives_its_tensors(
    served: Served,
    operation: str,
    inputs: dict[str, np.ndarray],
    parameters: dict[str, Any],
    shapes: dict[str, tuple[int, ...]],
) -> None:
    given = [tensor(name, value) for name, value in inputs.items()]
    found = outputs(infer(served, request(DIGITS, *given, operation=operation, **parameters)))
    assert {name: found[name].shape for name in shapes} == shapes


def test_text_goes_in_and_comes_out_beside_its_ids(served: Served) -> None:
    response = infer(served, request(LETTERS, prompt="ab", stop=".", seed=3, max_new_tokens=4))
    found = outputs(response)
    assert found["data"].dtype == np.int32
    assert found["lengths"].tolist() == [32]
    assert found["finish_reasons"] == [b"length"]
    assert len(found["text"]) == 1
    asked = served.engine.requests[0][1]
    assert bytes(np.asarray(asked.data)[0].astype(np.uint8)) == b"ab"
    assert asked.parameters["stop"] == (".",)
    scored = outputs(infer(served, request(LETTERS, tensor("data", [b"ab", b"cd!"]), operation="likelihood")))
    assert len(scored["log_prob"]) == 2
    assert served.engine.requests[1][1].lengths.tolist() == [2, 3]  # type: ignore[union-attr]
    infer(served, request(LETTERS, tensor("prompt", [b"x"]), tensor("stop", [b".", b"!"]), n=2))
    assert served.engine.requests[2][1].parameters["stop"] == (".", "!")


def test_pictures_go_in_and_come_out_as_png(served: Served) -> None:
    raster = raster_of(SPECS[DIGITS].data)
    assert raster is not None
    files = pngs_of(ROWS, raster)
    sent = request(DIGITS, tensor("data", files), operation="reconstruct", encoding="png")
    assert outputs(infer(served, sent))["data"] == files


def test_typed_contents_say_the_same_as_raw_ones(served: Served) -> None:
    one = pb.ModelInferRequest.InferInputTensor(name="data", datatype="UINT8", shape=ROWS.shape)
    one.contents.uint_contents.extend(ROWS.ravel().tolist())
    mask = pb.ModelInferRequest.InferInputTensor(name="observed", datatype="BOOL", shape=UPPER.shape)
    mask.contents.bool_contents.extend(UPPER.ravel().tolist())
    typed = request(operation="inpaint", seed=5)
    typed.inputs.extend([one, mask])
    raw = request(DIGITS, tensor("data", ROWS), tensor("observed", UPPER), operation="inpaint", seed=5)
    assert outputs(infer(served, typed))["data"].tobytes() == outputs(infer(served, raw))["data"].tobytes()
    latents = pb.ModelInferRequest.InferInputTensor(name="latents", datatype="FP32", shape=[1, 4])
    latents.contents.fp32_contents.extend([0.5, 0.25, -1.0, 2.0])
    decoded = request(operation="decode")
    decoded.inputs.append(latents)
    infer(served, decoded)
    assert served.engine.requests[-1][1].latents.tolist() == [[0.5, 0.25, -1.0, 2.0]]  # type: ignore[union-attr]
    texts = pb.ModelInferRequest.InferInputTensor(name="data", datatype="BYTES", shape=[1])
    texts.contents.bytes_contents.append(b"abc")
    scored = request(LETTERS, operation="likelihood")
    scored.inputs.append(texts)
    assert len(outputs(infer(served, scored))["log_prob"]) == 1


def test_integers_of_another_width_are_taken_where_each_of_them_fits(served: Served) -> None:
    wide = tensor("data", ROWS.astype(np.int64))
    found = outputs(infer(served, request(DIGITS, wide, operation="reconstruct")))
    np.testing.assert_array_equal(found["data"], ROWS)
    labels = tensor("label", np.array([1, 2], np.int32))
    infer(served, request(DIGITS, labels, n=2))
    assert served.engine.requests[-1][1].conditions["label"].tolist() == [1, 2]
    too_large = tensor("data", np.full((1, 1, 8, 8), 256, np.int64))
    answer = refused(served, request(DIGITS, too_large, operation="reconstruct"))
    assert "outside 0..255" in answer.message


def test_vector_conditions_go_by_inputs(served: Served) -> None:
    style = tensor("style", np.array([[0.5, 1.5]], np.float32))
    infer(served, request(CLOUD, style, n=3))
    assert served.engine.requests[-1][1].conditions["style"].tolist() == [[0.5, 1.5]] * 3


def test_wanted_outputs_come_in_their_order_and_alone(served: Served) -> None:
    wanted = ["bits_per_dim", "log_prob"]
    sent = request(DIGITS, tensor("data", ROWS), outputs=wanted, operation="likelihood")
    response = infer(served, sent)
    assert [output.name for output in response.outputs] == wanted
    assert facts(response)["kind"] == "exact"


def test_validate_only_computes_nothing_and_predicts(served: Served) -> None:
    response = infer(served, request(n=4, validate_only=True))
    assert not response.outputs
    assert not served.engine.requests
    assert facts(response)["device_seconds"] == 0.5
    assert facts(response)["parameters.steps"] == 10
