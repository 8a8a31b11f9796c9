"""Requests of the Open Inference Protocol to Asked: parameters bear the names of the Python client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.package.schema import Condition, ModelSpec
from pxserve.v1 import data_pb2
from serving.api.convert.infer_inputs import MAX_NAME, Inputs
from serving.api.convert.infer_tensors import Input, inputs_of
from serving.api.convert.rows import rows_of
from serving.api.inference import open_inference_pb2 as pb
from serving.api.resolve.asked import CHOICE_FIELD, Asked, Given, Rows
from serving.api.resolve.request import Rules
from serving.errors import invalid
from serving.families.request import Operation, Value

_INT32 = 2**31
_ENCODINGS = {"tensor": data_pb2.ENCODING_TENSOR, "png": data_pb2.ENCODING_PNG}
_WITH_N = (Operation.SAMPLE, Operation.INPAINT)
_WIDE = ("max_network_evaluations",)  # parameters that may exceed 32 bits


@dataclass(frozen=True)
class Inference:
    """A ModelInferRequest whose parameters are read; its inputs are not yet."""

    message: pb.ModelInferRequest
    operation: Operation
    parameters: Mapping[str, Value]  # what is not named below
    version: int | None
    validate_only: bool
    encoding: data_pb2.Encoding.ValueType
    timeout_s: float | None

    @classmethod
    def of(cls, message: pb.ModelInferRequest) -> Inference:
        """InvalidArgument where a parameter has no value, or one that it cannot have."""
        given = {name: _value(name, value) for name, value in message.parameters.items()}
        return cls(
            message,
            _operation(given.pop("operation", Operation.SAMPLE.value)),
            given,
            version_of(message.model_version, "model_version"),
            _flag(given, "validate_only"),
            _encoding(given.pop("encoding", "tensor")),
            _timeout_s(given),
        )

    def asked(self, rules: Rules) -> Asked:
        """What is asked of a model; InvalidArgument for whatever the operation does not take."""
        left = dict(self.parameters)
        inputs = Inputs(inputs_of(self.message), rules, self.operation)
        conditions = _conditions(left, inputs, rules.spec)
        _take_stop(left, inputs)
        choice = left.pop(CHOICE_FIELD[self.operation].rpartition(".")[2], None)
        n = _integer(left, "n", _INT32) if self.operation in _WITH_N else None
        asked = Asked(
            self.operation,
            choice=_choice(choice, self.operation),
            seed=_integer(left, "seed", 2**64),
            first_row=_integer(left, "first_row", 2**32) or 0,
            n=n,
            data=self._data(left, inputs, rules),
            end=inputs.rows("end", "end_lengths"),
            latents=inputs.latents(),
            observed=inputs.observed(),
            conditions=conditions,
            parameters=left,
        )
        inputs.end()
        return asked

    def _data(self, left: dict[str, Value], inputs: Inputs, rules: Rules) -> Rows | None:
        """The rows that the operation is about; of Sample: the prompt, which may also be a parameter."""
        found = [rows for name in ("data", "start", "prompt") if (rows := inputs.rows(name, "lengths"))]
        if self.operation is not Operation.SAMPLE or "prompt" not in left:
            return found[0] if found else None
        text = left.pop("prompt")
        if found or not isinstance(text, str):
            raise invalid("parameters.prompt", "must be of type string, and not an input as well")
        message = data_pb2.Data(texts=data_pb2.Texts(texts=[text]))
        return rows_of(message, rules.spec, rules.max_rows, "parameters.prompt", rules.codec)


def version_of(text: str, field: str) -> int | None:
    """A version as the protocol writes it; None where it is empty."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise invalid(field, f"{text[:MAX_NAME]!r} is no version: a decimal number, or empty")
    return int(text)


def _value(name: str, value: pb.InferParameter) -> Value:
    field = f"parameters.{name[:MAX_NAME]}"
    kind = value.WhichOneof("parameter_choice")
    if kind is None:
        raise invalid(field, "has no value")
    found: bool | int | float | str = getattr(value, kind)
    wide = name in (*_WIDE, "seed", "first_row", "timeout")
    if isinstance(found, int) and not wide and not -_INT32 <= found < _INT32:
        raise invalid(field, f"{found} does not fit 32 bits")
    return found


def _operation(value: Value) -> Operation:
    if value not in set(Operation):
        raise invalid("parameters.operation", f"{value!r:.60} is none of {', '.join(Operation)}")
    return Operation(str(value))


def _encoding(value: Value) -> data_pb2.Encoding.ValueType:
    if not isinstance(value, str) or value not in _ENCODINGS:
        raise invalid("parameters.encoding", f"{value!r:.60} is none of {', '.join(_ENCODINGS)}")
    return _ENCODINGS[value]


def _flag(given: dict[str, Value], name: str) -> bool:
    value = given.pop(name, False)
    if not isinstance(value, bool):
        raise invalid(f"parameters.{name}", "must be of type bool")
    return value


def _timeout_s(given: dict[str, Value]) -> float | None:
    """Microseconds, as tritonclient sends them."""
    if "timeout" not in given:
        return None
    microseconds = _integer(given, "timeout", 2**63)
    return None if not microseconds else microseconds / 1e6


def _integer(given: dict[str, Value], name: str, end: int) -> int | None:
    """A parameter in 0 .. end - 1; None where it is absent."""
    value = given.pop(name, None)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < end:
        raise invalid(f"parameters.{name}", f"must be an integer in 0..{end - 1}")
    return value


def _choice(value: Value | None, operation: Operation) -> str | None:
    if value is not None and not isinstance(value, str):
        raise invalid(CHOICE_FIELD[operation], "must be of type string")
    return value


def _take_stop(left: dict[str, Value], inputs: Inputs) -> None:
    """One string as a parameter, or several as an input."""
    several = inputs.texts("stop")
    if several and "stop" in left:
        raise invalid("parameters.stop", "is given twice")
    if several:
        left["stop"] = several
    elif isinstance(left.get("stop"), str):
        left["stop"] = (str(left["stop"]),)


def _conditions(left: dict[str, Value], inputs: Inputs, spec: ModelSpec) -> tuple[Given, ...]:
    """From inputs by the condition's name; classes also from parameters, the first also as ``label``."""
    first = next((condition.name for condition in spec.conditions if condition.kind == "class"), None)
    if "label" in left and first is None:
        raise invalid("parameters.label", "this model has no class condition")
    given = []
    for condition in spec.conditions:
        names = {condition.name, "label"} if condition.name == first else {condition.name}
        if condition.kind == "text":
            texts = inputs.texts(condition.name)
            given += [Given(condition.name, np.array(texts, object))] if texts else []
            continue
        one = inputs.take(condition.name)
        parameters = [name for name in names if name in left]
        if len(parameters) + (one is not None) > 1:
            raise invalid(f"parameters.{parameters[0]}", "is given twice")
        if one is not None:
            given.append(Given(condition.name, _condition(one, condition)))
        elif parameters:
            given.append(Given(condition.name, _class(left.pop(parameters[0]), condition)))
    return tuple(given)


def _condition(one: Input, condition: Condition) -> NDArray[np.generic]:
    if condition.kind != "class":
        return one.array("float32")
    classes = one.array("int64")
    if classes.ndim > 1 or not classes.size:
        raise invalid(f"{one.field}.shape", "must be [1 or rows]")
    return np.atleast_1d(classes)


def _class(value: Value, condition: Condition) -> NDArray[np.int64]:
    if condition.kind != "class" or isinstance(value, bool) or not isinstance(value, int):
        raise invalid(f"parameters.{condition.name}", f"a {condition.kind} condition goes by an input")
    return np.array([value], np.int64)
