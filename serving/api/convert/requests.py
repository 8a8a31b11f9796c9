"""Request messages to Asked, one function per operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from pxserve.v1 import anomaly_pb2, data_pb2, inpaint_pb2, latent_pb2, likelihood_pb2, sample_pb2
from serving.api.convert.rows import rows_of
from serving.api.convert.tensors import array_of, floats_of
from serving.api.convert.values import values_of
from serving.api.resolve.asked import Asked, Given, Rows
from serving.api.resolve.request import Rules
from serving.api.resolve.rows import check_shape
from serving.errors import invalid
from serving.families.request import Operation, Value

Question = (
    sample_pb2.SampleRequest
    | likelihood_pb2.LikelihoodRequest
    | inpaint_pb2.InpaintRequest
    | anomaly_pb2.ScoreAnomalyRequest
    | latent_pb2.EncodeRequest
    | latent_pb2.DecodeRequest
    | latent_pb2.ReconstructRequest
    | latent_pb2.InterpolateRequest
)

# gRPC method, operation, request message
QUESTIONS: tuple[tuple[str, Operation, type[Question]], ...] = (
    ("Sample", Operation.SAMPLE, sample_pb2.SampleRequest),
    ("Likelihood", Operation.LIKELIHOOD, likelihood_pb2.LikelihoodRequest),
    ("Inpaint", Operation.INPAINT, inpaint_pb2.InpaintRequest),
    ("ScoreAnomaly", Operation.SCORE_ANOMALY, anomaly_pb2.ScoreAnomalyRequest),
    ("Encode", Operation.ENCODE, latent_pb2.EncodeRequest),
    ("Decode", Operation.DECODE, latent_pb2.DecodeRequest),
    ("Reconstruct", Operation.RECONSTRUCT, latent_pb2.ReconstructRequest),
    ("Interpolate", Operation.INTERPOLATE, latent_pb2.InterpolateRequest),
)


def asked_of(question: Question, rules: Rules) -> Asked:
    """What the client asked; InvalidArgument where a value cannot be read for this model."""
    return _READERS[type(question)](question, rules)


def _sample(question: sample_pb2.SampleRequest, rules: Rules) -> Asked:
    given = values_of(question.parameters, "parameters")
    return Asked(
        Operation.SAMPLE,
        choice=_choice(given, "sampler"),
        parameters=given,
        seed=_seed(question),
        first_row=question.first_row,
        n=question.n if question.HasField("n") else None,
        data=_rows(question, "prompt", rules),
        conditions=_conditions(question.conditions),
    )


def _likelihood(question: likelihood_pb2.LikelihoodRequest, rules: Rules) -> Asked:
    given = values_of(question.parameters, "parameters")
    return Asked(
        Operation.LIKELIHOOD,
        choice=_choice(given, "method"),
        parameters=given,
        seed=_seed(question),
        first_row=question.first_row,
        data=_rows(question, "data", rules),
        observed=_observed(question),
        conditions=_conditions(question.conditions),
    )


def _inpaint(question: inpaint_pb2.InpaintRequest, rules: Rules) -> Asked:
    given = values_of(question.parameters, "parameters")
    given |= values_of(question.parameters.sampling, "parameters.sampling")
    return Asked(
        Operation.INPAINT,
        choice=_choice(given, "method"),
        parameters=given,
        seed=_seed(question),
        first_row=question.first_row,
        n=question.n if question.HasField("n") else None,
        data=_rows(question, "data", rules),
        observed=_observed(question),
        conditions=_conditions(question.conditions),
    )


def _score_anomaly(question: anomaly_pb2.ScoreAnomalyRequest, rules: Rules) -> Asked:
    return Asked(
        Operation.SCORE_ANOMALY,
        choice=question.method if question.HasField("method") else None,
        parameters={"score_map": True} if question.score_map else {},
        seed=_seed(question),
        first_row=question.first_row,
        data=_rows(question, "data", rules),
        conditions=_conditions(question.conditions),
    )


def _encode(question: latent_pb2.EncodeRequest, rules: Rules) -> Asked:
    given: dict[str, Value] = {"steps": question.steps} if question.HasField("steps") else {}
    given |= {"round_trip": True} if question.round_trip else {}
    return Asked(
        Operation.ENCODE,
        choice=question.method if question.HasField("method") else None,
        parameters=given,
        seed=_seed(question),
        first_row=question.first_row,
        data=_rows(question, "data", rules),
        conditions=_conditions(question.conditions),
    )


def _decode(question: latent_pb2.DecodeRequest, rules: Rules) -> Asked:
    given = values_of(question.parameters, "parameters")
    return Asked(
        Operation.DECODE,
        choice=_choice(given, "sampler"),
        parameters=given,
        seed=_seed(question),
        first_row=question.first_row,
        latents=_latents(question, rules),
        conditions=_conditions(question.conditions),
    )


def _reconstruct(question: latent_pb2.ReconstructRequest, rules: Rules) -> Asked:
    return Asked(
        Operation.RECONSTRUCT,
        parameters={"steps": question.steps} if question.HasField("steps") else {},
        seed=_seed(question),
        first_row=question.first_row,
        data=_rows(question, "data", rules),
        conditions=_conditions(question.conditions),
    )


def _interpolate(question: latent_pb2.InterpolateRequest, rules: Rules) -> Asked:
    given = values_of(question.parameters, "parameters")
    given |= {"points": question.points} if question.HasField("points") else {}
    return Asked(
        Operation.INTERPOLATE,
        choice=question.path if question.HasField("path") else None,
        parameters=given,
        seed=_seed(question),
        first_row=question.first_row,
        data=_rows(question, "start", rules),
        end=_rows(question, "end", rules),
        conditions=_conditions(question.conditions),
    )


def _choice(given: dict[str, Value], name: str) -> str | None:
    choice = given.pop(name, None)
    return choice if isinstance(choice, str) else None


def _seed(question: Question) -> int | None:
    return question.seed if question.HasField("seed") else None


def _rows(question: Message, field: str, rules: Rules) -> Rows | None:
    if not question.HasField(field):
        return None
    data: data_pb2.Data = getattr(question, field)
    return rows_of(data, rules.spec, rules.max_rows, field, rules.codec)


def _observed(
    question: likelihood_pb2.LikelihoodRequest | inpaint_pb2.InpaintRequest,
) -> NDArray[np.bool_] | None:
    if not question.HasField("observed"):
        return None
    return np.asarray(array_of(question.observed, "observed", "bool"), np.bool_)


def _latents(question: latent_pb2.DecodeRequest, rules: Rules) -> NDArray[np.float32] | None:
    if not question.HasField("latents"):
        return None
    latents = floats_of(question.latents, "latents")
    if rules.latent is not None:
        check_shape(latents.shape, rules.latent, "latents.shape")
    return latents


def _conditions(messages: Sequence[data_pb2.Condition]) -> tuple[Given, ...]:
    return tuple(_given(message, f"conditions[{index}]") for index, message in enumerate(messages))


def _given(message: data_pb2.Condition, field: str) -> Given:
    kind = message.WhichOneof("value")
    if kind == "labels":
        if not message.labels.ids:
            raise invalid(f"{field}.labels", "holds no class")
        return Given(message.name, np.array(message.labels.ids, np.int64))
    if kind == "tensor":
        return Given(message.name, floats_of(message.tensor, f"{field}.tensor"))
    if kind == "texts" and message.texts.texts and not message.texts.HasField("tokens"):
        return Given(message.name, np.array(list(message.texts.texts), object))
    if kind == "use_null" and message.use_null:
        return Given(message.name, None)
    raise invalid(f"{field}.{kind or 'value'}", "set labels, a tensor or texts, or use_null to true")


_READERS: dict[type[Message], Callable[..., Asked]] = {
    sample_pb2.SampleRequest: _sample,
    likelihood_pb2.LikelihoodRequest: _likelihood,
    inpaint_pb2.InpaintRequest: _inpaint,
    anomaly_pb2.ScoreAnomalyRequest: _score_anomaly,
    latent_pb2.EncodeRequest: _encode,
    latent_pb2.DecodeRequest: _decode,
    latent_pb2.ReconstructRequest: _reconstruct,
    latent_pb2.InterpolateRequest: _interpolate,
}
