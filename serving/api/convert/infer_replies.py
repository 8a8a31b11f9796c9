"""Results as responses of the Open Inference Protocol: outputs bear the names of the Python client."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np

from pxserve.v1 import data_pb2, provenance_pb2
from serving.api.convert.infer_inputs import MAX_NAME
from serving.api.convert.infer_tensors import add_output
from serving.api.convert.rows import Writer
from serving.api.convert.texts import has_text, texts_of
from serving.api.convert.values import enum_word
from serving.api.inference import open_inference_pb2 as pb
from serving.errors import invalid
from serving.families.request import Array, Operation, Value
from serving.families.result import (
    Anomalies,
    Completed,
    Decoded,
    Encoded,
    Interpolated,
    Reconstructed,
    Result,
    Sampled,
    Scored,
)

Output = Array | Sequence[bytes]

# Outputs that a request must also ask for by a parameter.
_ASKED_BY: Mapping[str, str] = {
    "log_prob_map": "per_dimension",
    "mean": "moments",
    "variance": "moments",
    "entropy": "entropy",
    "score_map": "score_map",
    "round_trip_error": "round_trip",
}
_COMPUTED: Mapping[type, tuple[str, ...]] = {Scored: ("bits_per_dim",)}
_RESULTS: Mapping[Operation, type] = {
    Operation.SAMPLE: Sampled,
    Operation.LIKELIHOOD: Scored,
    Operation.INPAINT: Completed,
    Operation.SCORE_ANOMALY: Anomalies,
    Operation.ENCODE: Encoded,
    Operation.DECODE: Decoded,
    Operation.RECONSTRUCT: Reconstructed,
    Operation.INTERPOLATE: Interpolated,
}
_FACTS = (  # of a result: parameters of the response
    "kind",
    "target",
    "base_measure",
    "dequantization",
    "path",
    "calibration_size",
    "calibration_digest",
)


def check_wanted(message: pb.ModelInferRequest, operation: Operation, given: Mapping[str, Value]) -> None:
    """Before any work: InvalidArgument for a wanted output that the operation cannot give as it is asked."""
    kind = _RESULTS[operation]
    known = {field.name for field in fields(kind)} - {*_FACTS, "parameters", "terms"}
    known |= {*_COMPUTED.get(kind, ()), *(("text",) if "data" in known else ())}
    for output in message.outputs:
        field = f"outputs[{output.name[:MAX_NAME]}]"
        if output.name not in known and not (kind is Scored and output.name.startswith("terms.")):
            raise invalid(field, f"{operation} gives {', '.join(sorted(known))}")
        flag = _ASKED_BY.get(output.name)
        if flag and given.get(flag) is not True:
            raise invalid(field, f"comes only with the parameter {flag}, true")
        if output.parameters:
            raise invalid(f"{field}.parameters", f"{min(output.parameters)!r:.60}: outputs have none here")


def response_of(
    result: Result, writer: Writer, provenance: provenance_pb2.Provenance, values: Mapping[str, Value]
) -> pb.ModelInferResponse:
    """The response with every output that the result has; ``values`` are the parameters as they were used."""
    response = framed(provenance, values)
    for name in _FACTS:
        fact = getattr(result, name, None)
        if fact is not None:
            _set(response.parameters[name], fact)
    for name, output in outputs_of(result, writer).items():
        add_output(response, name, output)
    return response


def framed(provenance: provenance_pb2.Provenance, values: Mapping[str, Value]) -> pb.ModelInferResponse:
    """A response without outputs: model, version and provenance."""
    response = pb.ModelInferResponse(model_name=provenance.model, model_version=str(provenance.version))
    for descriptor, value in provenance.ListFields():
        if descriptor.name in ("model", "version", "parameters"):
            continue
        word = descriptor.enum_type and enum_word(descriptor.enum_type, value, descriptor.name)
        _set(response.parameters[descriptor.name], word or value)
    for name, value in values.items():
        _set(response.parameters[f"parameters.{name}"], value)
    return response


def outputs_of(result: Result, writer: Writer) -> dict[str, Output]:
    """Outputs by name: arrays, or byte strings (texts, PNG files, words)."""
    found: dict[str, Output] = {}
    for name in (*(field.name for field in fields(result)), *_COMPUTED.get(type(result), ())):
        value = getattr(result, name)
        if isinstance(value, np.ndarray):
            found[name] = value
        elif name == "terms":
            found |= {f"terms.{term}": nats for term, nats in value.items()}
        elif name == "finish_reasons" and value:
            found[name] = [reason.value.encode() for reason in value]
    if "data" in found:
        _shape_lengths(result, found)
        found |= _written(result, found, writer)
    return found


def chosen(response: pb.ModelInferResponse, wanted: Sequence[str]) -> pb.ModelInferResponse:
    """The response with the outputs that are wanted, in their order; all of them where none is named."""
    if not wanted:
        return response
    places = {output.name: place for place, output in enumerate(response.outputs)}
    for name in wanted:
        if name not in places:
            raise invalid(f"outputs[{name}]", f"this answer has none; it has {', '.join(places)}")
    outputs = [response.outputs[places[name]] for name in wanted]
    contents = [response.raw_output_contents[places[name]] for name in wanted]
    less = pb.ModelInferResponse(outputs=outputs, raw_output_contents=contents)
    less.model_name, less.model_version = response.model_name, response.model_version
    for key, value in response.parameters.items():
        less.parameters[key].CopyFrom(value)
    return less


def _shape_lengths(result: Result, found: dict[str, Output]) -> None:
    """[rows] of a completed row become [rows, n]; those of walks [rows * points] become [rows, points]."""
    lengths, data = found.get("lengths"), found["data"]
    if isinstance(lengths, np.ndarray) and isinstance(data, np.ndarray):
        leading = data.shape[: data.ndim - 1]
        if isinstance(result, Completed):
            lengths = np.repeat(lengths[:, None], data.shape[1], axis=1)
        found["lengths"] = lengths.reshape(leading).astype(np.int32, copy=False)


def _written(result: Result, found: Mapping[str, Output], writer: Writer) -> dict[str, Output]:
    """Texts beside the ids of models with a tokenizer; PNG files in the place of levels where asked for."""
    data, lengths = found["data"], found.get("lengths")
    assert isinstance(data, np.ndarray)
    if writer.encoding == data_pb2.ENCODING_PNG:
        return {"data": list(writer.data(data, None).images.png)}
    if not has_text(writer.spec):
        return {}
    flat = data.reshape(-1, data.shape[-1])
    counts = np.ravel(lengths) if isinstance(lengths, np.ndarray) else None
    return {"text": [text.encode() for text in texts_of(flat, counts, writer.codec)]}


def _set(parameter: pb.InferParameter, value: object) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int) and value >= 2**63:
        parameter.uint64_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    else:
        parameter.string_param = json.dumps(list(value)) if isinstance(value, tuple) else str(value)
