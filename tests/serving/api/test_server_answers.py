"""Every operation over loopback gRPC, through the real server and a fake engine."""

from __future__ import annotations

import numpy as np
import pytest

from pxserve.v1 import (
    anomaly_pb2,
    data_pb2,
    inpaint_pb2,
    latent_pb2,
    likelihood_pb2,
    model_service_pb2,
    sample_pb2,
)
from serving.api import prepared
from serving.api.convert.tensors import tensor_of
from tests.serving.api.fake_models import CLOUD, DIGITS, LETTERS
from tests.serving.api.served import Served


def test_models_are_listed_in_pages_without_capabilities(served: Served) -> None:
    first = served.call("ListModels", model_service_pb2.ListModelsRequest(page_size=2))
    rest = served.call("ListModels", model_service_pb2.ListModelsRequest(page_token=first.next_page_token))
    assert [m.name for m in (*first.models, *rest.models)] == sorted((DIGITS, LETTERS, CLOUD))
    assert not rest.next_page_token
    assert not first.models[0].capabilities


def test_get_model_says_what_can_be_asked(served: Served) -> None:
    model = served.call("GetModel", model_service_pb2.GetModelRequest(model=DIGITS)).model
    assert model.is_default_version
    assert list(model.data.shape) == [1, 8, 8]
    sample = model.capabilities[0]
    assert [method.name for method in sample.methods] == ["ddim", "ddpm"]
    steps = sample.methods[0].parameters[0]
    assert (steps.name, steps.default_value, steps.minimum, steps.maximum) == ("steps", "10", 1, 1000)


def images(rows: int, value: int = 3) -> data_pb2.Data:
    return data_pb2.Data(tensor=tensor_of(np.full((rows, 1, 8, 8), value, np.uint8)))


def rows_in(data: data_pb2.Data) -> np.ndarray:
    return np.frombuffer(data.tensor.data, np.uint8).reshape(tuple(data.tensor.shape))


def test_sample_returns_rows_kind_parameters_and_complete_provenance(served: Served) -> None:
    request = sample_pb2.SampleRequest(model=DIGITS, n=3, seed=7, first_row=2)
    request.parameters.guidance_scale = 0.7
    answer = served.call("Sample", request, metadata=(("x-request-id", "mine"),))
    assert rows_in(answer.data).shape == (3, 1, 8, 8)
    assert answer.kind == sample_pb2.SAMPLE_KIND_EXACT
    assert answer.parameters.sampler == "ddim"
    assert answer.parameters.steps == 10
    origin = answer.provenance
    assert (origin.request_id, origin.model, origin.version) == ("mine", DIGITS, 1)
    assert (origin.seed, origin.first_row, origin.network_evaluations) == (7, 2, 30)
    assert (origin.family, origin.method, origin.package_digest) == ("vae", "ddim", "d" * 64)
    assert (origin.dtype, origin.device, origin.runtime) == ("float32", "cpu", "fake 1")
    assert dict(origin.parameters) == {"steps": "10", "guidance_scale": "0.7"}
    assert (origin.device_seconds, origin.queue_seconds) == (0.125, 0.0625)
    assert origin.server_version


def test_absent_seed_is_drawn_below_two_to_the_53_and_returned(served: Served) -> None:
    answer = served.call("Sample", sample_pb2.SampleRequest(model=DIGITS))
    key, request, _ = served.engine.requests[0]
    assert request.seed == answer.provenance.seed < 2**53
    assert key.name == DIGITS


def test_largest_seed_is_taken_as_it_is(served: Served) -> None:
    answer = served.call("Sample", sample_pb2.SampleRequest(model=DIGITS, seed=2**64 - 1))
    assert answer.provenance.seed == 2**64 - 1


def test_text_models_answer_in_text_with_their_tokens(served: Served) -> None:
    answer = served.call("Sample", sample_pb2.SampleRequest(model=LETTERS, n=2, seed=1))
    ids = np.frombuffer(answer.data.texts.tokens.data, np.int32).reshape(2, -1)
    assert answer.data.texts.texts[0] == bytes(ids[0].tolist()).decode("utf-8", "replace")
    assert list(answer.data.lengths) == [32, 32]
    assert list(answer.finish_reasons) == [sample_pb2.FINISH_REASON_LENGTH] * 2


def test_pictures_travel_as_png_in_both_directions(served: Served) -> None:
    drawn = served.call(
        "Sample", sample_pb2.SampleRequest(model=DIGITS, n=2, seed=5, encoding=data_pb2.ENCODING_PNG)
    )
    again = served.call("Reconstruct", latent_pb2.ReconstructRequest(model=DIGITS, data=drawn.data))
    raw = served.call("Sample", sample_pb2.SampleRequest(model=DIGITS, n=2, seed=5))
    assert again.data.tensor.data == raw.data.tensor.data


def test_likelihood_returns_nats_bits_and_terms(served: Served) -> None:
    answer = served.call("Likelihood", likelihood_pb2.LikelihoodRequest(model=DIGITS, data=images(2)))
    assert list(answer.log_prob) == [-1.0, -2.0]
    assert answer.bits_per_dim[1] == pytest.approx(2.0 / (64 * np.log(2.0)))
    assert answer.dequantization == likelihood_pb2.DEQUANTIZATION_UNIFORM
    assert [term.name for term in answer.terms] == ["prior", "decoder"]
    assert answer.parameters.method == "elbo"


def test_inpaint_keeps_given_entries_and_never_reads_the_others(served: Served) -> None:
    given = np.full((2, 1, 8, 8), 255, np.uint8)
    given[:, :, :4] = 9
    mask = np.zeros((8, 8), np.bool_)
    mask[:4] = True
    request = inpaint_pb2.InpaintRequest(
        model=DIGITS, data=data_pb2.Data(tensor=tensor_of(given)), observed=tensor_of(mask), n=3
    )
    request.parameters.sampling.steps = 20
    answer = served.call("Inpaint", request)
    completed = rows_in(answer.data)
    assert completed.shape == (2, 3, 1, 8, 8)
    assert (completed[:, :, :, :4] == 9).all()
    assert answer.parameters.sampling.steps == 20
    assert answer.parameters.sweeps == 2
    _, seen, _ = served.engine.requests[0]
    assert seen.data is not None
    assert not seen.data[:, :, 4:].any()


def test_other_operations_answer(served: Served) -> None:
    anomalies = served.call("ScoreAnomaly", anomaly_pb2.ScoreAnomalyRequest(model=DIGITS, data=images(2)))
    assert list(anomalies.p_value) == [0.5, 1.5]
    assert anomalies.method == "score"
    encoded = served.call("Encode", latent_pb2.EncodeRequest(model=DIGITS, data=images(2), round_trip=True))
    assert list(encoded.latents.shape) == [2, 4]
    decoded = served.call("Decode", latent_pb2.DecodeRequest(model=DIGITS, latents=encoded.latents))
    assert list(decoded.data.tensor.shape) == [2, 1, 8, 8]
    walk = served.call(
        "Interpolate",
        latent_pb2.InterpolateRequest(
            model=DIGITS, start=images(2), end=images(2, 5), points=4, path="spherical"
        ),
    )
    assert list(walk.data.tensor.shape) == [2, 4, 1, 8, 8]
    assert walk.path == "spherical"


def test_one_label_counts_for_every_row(served: Served) -> None:
    request = sample_pb2.SampleRequest(model=DIGITS, n=3)
    request.conditions.add(name="label").labels.ids.append(4)
    served.call("Sample", request)
    served.call("Sample", sample_pb2.SampleRequest(model=DIGITS, n=2))
    (_, given, _), (_, absent, _) = served.engine.requests
    assert given.conditions["label"].tolist() == [4, 4, 4]
    assert given.given_conditions == {"label"}
    assert absent.conditions["label"].tolist() == [10, 10]
    assert not absent.given_conditions


def test_validate_only_predicts_the_cost_and_computes_nothing(served: Served) -> None:
    request = sample_pb2.SampleRequest(model=DIGITS, n=4, validate_only=True)
    answer = served.call("Sample", request)
    assert not served.engine.requests
    assert not answer.HasField("data")
    assert answer.parameters.steps == 10
    assert answer.provenance.network_evaluations == 40
    assert (answer.provenance.device_seconds, answer.provenance.queue_seconds) == (0.5, 0.25)


def test_deadline_of_the_call_or_the_default_reaches_the_engine(served: Served) -> None:
    served.call("Sample", sample_pb2.SampleRequest(model=DIGITS), timeout_s=7.0)
    options = served.engine.requests[0][2]
    assert options.deadline_s is not None
    assert 5.0 < options.deadline_s < 7.1


def test_self_test_gives_every_check_a_verdict(served: Served) -> None:
    answer = served.call("SelfTest", model_service_pb2.SelfTestRequest(model=DIGITS, seed=3))
    verdicts = {check.name: check.verdict for check in answer.checks}
    passed = {name for name, verdict in verdicts.items() if verdict == model_service_pb2.VERDICT_PASS}
    assert passed >= {"same_seed", "split", "batch_independence", "given_entries", "unobserved_entries"}
    undefined = served.call(
        "SelfTest", model_service_pb2.SelfTestRequest(model=LETTERS, checks=["round_trip"])
    )
    assert undefined.checks[0].verdict == model_service_pb2.VERDICT_NOT_APPLICABLE


def test_stop_strings_and_their_reply(served: Served) -> None:
    request = sample_pb2.SampleRequest(model=LETTERS, seed=1)
    request.parameters.stop.extend(["\n", "end"])
    answer = served.call("Sample", request)
    assert list(answer.parameters.stop) == ["\n", "end"]
    assert answer.provenance.parameters["stop"] == '["\\n", "end"]'


def test_large_requests_and_replies_pass_through_threads(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "INLINE_BYTES", 0)
    monkeypatch.setattr(prepared, "INLINE_ELEMENTS", 0)
    rows = data_pb2.Data(tensor=tensor_of(np.full((64, 1, 8, 8), 3, np.uint8)))
    mask = tensor_of(np.ones((64, 1, 8, 8), np.bool_))
    request = inpaint_pb2.InpaintRequest(model=DIGITS, data=rows, observed=mask, n=1)
    assert rows_in(served.call("Inpaint", request).data).shape == (64, 1, 1, 8, 8)
