"""Models, capabilities and data spaces as messages."""

from __future__ import annotations

from export.package.schema import Condition, DataSpace
from pxserve.v1 import model_pb2
from serving.api.convert.tensors import data_type_of
from serving.api.convert.texts import has_text
from serving.api.convert.values import text_of
from serving.families.capability import Capability, Method, Parameter
from serving.repository.loader import LoadedModel
from serving.repository.version import State, Version

_STATES = {
    State.LOADING: model_pb2.MODEL_STATE_LOADING,
    State.WARMING: model_pb2.MODEL_STATE_WARMING,
    State.READY: model_pb2.MODEL_STATE_READY,
    State.FAILED: model_pb2.MODEL_STATE_FAILED,
    State.UNLOADING: model_pb2.MODEL_STATE_UNLOADING,
    State.UNLOADED: model_pb2.MODEL_STATE_UNLOADED,
}


def model_of(
    version: Version, *, is_default: bool, max_rows: int, max_message_bytes: int, full: bool
) -> model_pb2.Model:
    """A version of a model; ``full`` with its capabilities."""
    message = model_pb2.Model(
        name=version.key.name,
        version=version.key.version,
        is_default_version=is_default,
        state=_STATES[version.state],
        state_message=version.message,
        max_rows_per_request=max_rows,
        max_message_bytes=max_message_bytes,
    )
    if version.loaded is not None:
        _describe(message, version.loaded)
        if full:
            message.capabilities.extend(_capability(entry) for entry in version.loaded.capabilities)
    return message


def _describe(message: model_pb2.Model, loaded: LoadedModel) -> None:
    spec = loaded.spec
    message.family = spec.family
    message.package_digest = loaded.digest
    message.data.CopyFrom(_space(spec.data, has_text(spec)))
    if loaded.latent is not None:
        message.latent.CopyFrom(_space(loaded.latent, False))
    message.conditions.extend(_condition(condition) for condition in spec.conditions)
    message.description = spec.description
    message.license = spec.license
    message.memory_bytes = loaded.memory_bytes


def _space(space: DataSpace, text: bool) -> model_pb2.DataSpec:
    return model_pb2.DataSpec(
        kind=space.kind,
        axes=space.axes,
        shape=space.shape,
        dtype=data_type_of(space.dtype),
        levels=space.levels,
        has_tokenizer=text,
        max_length=space.max_length,
    )


def _condition(condition: Condition) -> model_pb2.ConditionSpec:
    return model_pb2.ConditionSpec(
        name=condition.name,
        kind=condition.kind,
        shape=condition.shape if condition.kind == "vector" else (),
        dtype=data_type_of("float32" if condition.kind == "vector" else "int32"),
        classes=condition.classes,
        when_absent=condition.when_absent,
        class_names=condition.class_names,
        has_null=condition.when_absent == "null",
    )


def _capability(capability: Capability) -> model_pb2.Capability:
    return model_pb2.Capability(
        operation=model_pb2.Operation.Value(f"OPERATION_{capability.operation.name}"),
        supported=capability.supported,
        reason=capability.reason,
        methods=[_method(method) for method in capability.methods],
    )


def _method(method: Method) -> model_pb2.Method:
    return model_pb2.Method(
        name=method.name,
        kind=method.kind,
        is_default=method.is_default,
        parameters=[_parameter(parameter) for parameter in method.parameters],
        row_seconds=method.row_seconds,
        reference=method.reference,
    )


def _parameter(parameter: Parameter) -> model_pb2.Parameter:
    return model_pb2.Parameter(
        name=parameter.name,
        type=parameter.type,
        default_value="" if parameter.default is None else text_of(parameter.default),
        minimum=parameter.minimum,
        maximum=parameter.maximum,
        choices=parameter.choices,
    )
