from __future__ import annotations

import inspect

import numpy as np
import pytest

from pxserve import AsyncClient, Client, CompletionKind, LikelihoodKind, PxserveError, SampleKind
from pxserve.v1 import (
    data_pb2,
    inpaint_pb2,
    latent_pb2,
    likelihood_pb2,
    model_service_pb2,
    sample_pb2,
)
from tests.client.fake_server import Script

ROWS = np.arange(128, dtype=np.uint8).reshape(2, 1, 8, 8) % 17


def test_samples_come_as_arrays_with_kind_parameters_and_provenance(client: Client) -> None:
    samples = client.sample("digits", 3, seed=7, steps=10, guidance_scale=0.1)
    assert samples.data.dtype == np.uint8
    assert samples.data.shape == (3, 1, 8, 8)
    assert samples.data[:, 0, 0, 0].tolist() == [7, 8, 9]
    assert samples.kind is SampleKind.MODIFIED
    assert samples.parameters == {"steps": 10, "guidance_scale": 0.1}
    assert (samples.provenance.seed, samples.provenance.version) == (7, 3)
    assert samples.provenance.tolerance == 0.25
    assert samples.provenance.parameters == {"steps": "10"}
    assert samples.log_prob is not None
    assert samples.sampling_log_prob is None


def test_absent_arguments_are_absent_in_the_request(client: Client, script: Script) -> None:
    client.sample("digits")
    request = script.last(sample_pb2.SampleRequest)
    assert not request.HasField("seed")
    assert not request.HasField("version")
    assert not request.HasField("prompt")
    assert not request.parameters.ListFields()
    assert request.n == 1


def test_every_keyword_reaches_its_field(client: Client, script: Script) -> None:
    client.sample(
        "digits", 2, version=3, seed=0, first_row=4, clip=False, stop="end", top_k=5, validate_only=True
    )
    request = script.last(sample_pb2.SampleRequest)
    assert request.HasField("seed")
    assert (request.version, request.first_row, request.validate_only) == (3, 4, True)
    assert request.parameters.HasField("clip")
    assert not request.parameters.clip
    assert (request.parameters.top_k, list(request.parameters.stop)) == (5, ["end"])


def test_text_models_return_text_and_token_ids(client: Client) -> None:
    samples = client.sample("text", 2, prompt="h", stop=["x", "y"])
    assert samples.text == ("hi", "hey")
    assert samples.data.tolist() == [[104, 105, 0], [104, 101, 121]]
    assert samples.lengths is not None
    assert samples.lengths.tolist() == [2, 3]
    assert samples.finish_reasons == ("stop", "length")


def test_likelihoods_carry_kind_target_terms_and_errors(client: Client, script: Script) -> None:
    found = client.likelihood("digits", ROWS, dequantization="uniform", probes=4, per_dimension=True)
    assert found.kind is LikelihoodKind.STOCHASTIC_LOWER_BOUND
    assert (found.target, found.base_measure, found.dequantization) == ("model", "counting", "uniform")
    assert found.log_prob.tolist() == [-2.0, -2.0]
    assert found.terms["kl"].tolist() == [-1.0, -1.0]
    assert found.solver_error is None
    request = script.last(likelihood_pb2.LikelihoodRequest)
    assert request.parameters.per_dimension
    assert not request.HasField("observed")


def test_completions_have_an_axis_of_their_own(client: Client, script: Script) -> None:
    hidden = np.zeros((8, 8), bool)
    found = client.inpaint("digits", ROWS, hidden, n=4, particles=8, sampler="ddim", steps=5, moments=True)
    assert found.data.shape == (2, 4, 1, 8, 8)
    assert found.kind is CompletionKind.CONSISTENT
    assert found.parameters == {"particles": 8, "moments": True, "sampler": "ddim", "steps": 5}
    request = script.last(inpaint_pb2.InpaintRequest)
    assert request.observed.dtype == data_pb2.DATA_TYPE_BOOL
    assert request.observed.shape == [8, 8]


def test_the_other_operations_answer(client: Client, script: Script) -> None:
    assert client.score_anomaly("digits", ROWS).calibration_size == 99
    assert client.encode("digits", ROWS, round_trip=True).latents.shape == (2, 4)
    assert client.decode("digits", np.zeros((3, 4)), observation_noise=True).data.shape == (3, 1, 8, 8)
    assert client.reconstruct("digits", ROWS).error.tolist() == [0.5, 0.5]
    walk = client.interpolate("digits", ROWS[:1], ROWS[1:], points=5)
    assert (walk.data.shape, walk.path) == ((1, 5, 1, 8, 8), "spherical")
    assert script.last(latent_pb2.DecodeRequest).parameters.observation_noise


def test_models_are_listed_over_all_pages_and_described(client: Client) -> None:
    assert [model.name for model in client.list_models()] == ["digits", "text"]
    model = client.get_model("digits")
    assert model.data is not None
    assert (model.data.dtype, model.data.shape, model.data.levels) == ("uint8", (1, 8, 8), 17)
    assert model.capabilities[1].reason == "ask digits-vae instead"
    assert model.capabilities[0].methods[0].parameters[0].maximum == 100
    assert client.get_model("text").latent is None
    assert client.load_model("digits", wait=True).state == "ready"
    assert client.unload_model("digits").name == "digits"
    assert client.self_test("digits", checks=["replay"]).checks[0].verdict == "pass"


def test_the_description_is_looked_up_once_and_again_after_a_refusal(client: Client, script: Script) -> None:
    client.sample("digits", label=3)
    client.sample("digits", label=4)
    assert script.count(model_service_pb2.GetModelRequest) == 1
    with pytest.raises(PxserveError):
        client.get_model("nothing")
    client.sample("digits", label=4)
    assert script.count(model_service_pb2.GetModelRequest) == 3


def test_both_clients_have_the_same_methods_with_written_out_arguments() -> None:
    def methods(kind: type) -> dict[str, str]:
        callables = {name: f for name, f in vars(kind).items() if callable(f) and not name.startswith("_")}
        shared = {name: f for name, f in callables.items() if name != "close"}
        return {name: str(inspect.signature(f)) for name, f in shared.items()}

    assert methods(Client) == methods(AsyncClient)
    assert len(methods(Client)) == 16
    sample = inspect.signature(Client.sample).parameters
    assert list(sample)[:3] == ["self", "model", "n"]
    assert {"sampler", "steps", "guidance_scale", "min_p", "prompt", "seed", "label", "timeout_s"} <= set(
        sample
    )


def test_unknown_keywords_are_refused_by_name(client: Client) -> None:
    with pytest.raises(TypeError, match="temprature"):
        client.sample("digits", temprature=1.0)  # type: ignore[call-arg]
