"""Models in the words of the Open Inference Protocol: which tensors they take and give, and their states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from serving.api.convert.infer_tensors import BYTES, datatype_of
from serving.api.convert.texts import has_text
from serving.api.inference import open_inference_pb2 as pb
from serving.families.request import Operation
from serving.repository.loader import LoadedModel
from serving.repository.version import STARTING, State, Version

MANY = -1
_ABOUT_DATA = frozenset(
    {
        Operation.LIKELIHOOD,
        Operation.INPAINT,
        Operation.SCORE_ANOMALY,
        Operation.ENCODE,
        Operation.RECONSTRUCT,
    }
)
_PER_ROW = {  # FP64 [rows]
    Operation.LIKELIHOOD: (
        "log_prob",
        "bits_per_dim",
        "standard_error",
        "effective_sample_size",
        "solver_error",
    ),
    Operation.INPAINT: ("effective_sample_size", "log_evidence"),
    Operation.SCORE_ANOMALY: ("score", "p_value"),
    Operation.ENCODE: ("round_trip_error",),
    Operation.RECONSTRUCT: ("error",),
}
_MAPS = {  # FP32 [rows, *shape]
    Operation.LIKELIHOOD: ("log_prob_map",),
    Operation.INPAINT: ("mean", "variance", "entropy"),
    Operation.SCORE_ANOMALY: ("score_map",),
}
_NESTED = (Operation.INPAINT, Operation.INTERPOLATE)  # data [rows, completions or points, *shape]
_GIVE_DATA = (*_NESTED, Operation.RECONSTRUCT, Operation.DECODE, Operation.SAMPLE)


@dataclass(frozen=True)
class Port:
    """One tensor; the first axis of ``shape`` counts rows."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def inputs_of(loaded: LoadedModel) -> tuple[Port, ...]:
    """What one operation or another takes."""
    return tuple(dict.fromkeys(_inputs(loaded)))


def outputs_of(loaded: LoadedModel) -> tuple[Port, ...]:
    """What one operation or another gives; a name whose shape depends on the operation is there twice."""
    return tuple(dict.fromkeys(_outputs(loaded)))


def metadata_of(loaded: LoadedModel, versions: list[Version]) -> pb.ModelMetadataResponse:
    """ModelMetadata of one version; ``versions``: all of the model."""
    tensor = pb.ModelMetadataResponse.TensorMetadata
    return pb.ModelMetadataResponse(
        name=loaded.key.name,
        versions=[str(version.key.version) for version in versions if version.state is State.READY],
        platform=_platform(loaded),
        inputs=[tensor(name=p.name, datatype=p.datatype, shape=p.shape) for p in inputs_of(loaded)],
        outputs=[tensor(name=p.name, datatype=p.datatype, shape=p.shape) for p in outputs_of(loaded)],
    )


def config_of(loaded: LoadedModel, max_rows: int) -> pb.ModelConfig:
    """ModelConfig of one version; ``max_rows`` of one request."""
    return pb.ModelConfig(
        name=loaded.key.name,
        platform=_platform(loaded),
        backend="pxserve",
        max_batch_size=max_rows,
        input=[
            pb.ModelInput(name=p.name, data_type=_data_type(p), dims=p.shape[1:], optional=True)
            for p in inputs_of(loaded)
        ],
        output=[
            pb.ModelOutput(name=p.name, data_type=_data_type(p), dims=p.shape[1:]) for p in outputs_of(loaded)
        ],
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
    )


def index_of(versions: list[Version], ready_only: bool) -> pb.RepositoryIndexResponse:
    """RepositoryIndex, in Triton's four states."""
    entry = pb.RepositoryIndexResponse.ModelIndex
    return pb.RepositoryIndexResponse(
        models=[
            entry(
                name=version.key.name,
                version=str(version.key.version),
                state=_state(version.state),
                reason=version.message,
            )
            for version in versions
            if version.state is State.READY or not ready_only
        ]
    )


def _inputs(loaded: LoadedModel) -> Iterator[Port]:
    spec, supported = loaded.spec, _supported(loaded)
    data = datatype_of(spec.data.dtype)
    shape = (MANY, *spec.data.shape)
    parameters = {p.name for c in loaded.capabilities for m in c.methods for p in m.parameters}
    if supported & _ABOUT_DATA:
        yield Port("data", data, shape)
    if Operation.INPAINT in supported or "observed" in parameters:
        yield Port("observed", "BOOL", shape)
    if Operation.DECODE in supported and loaded.latent is not None:
        yield Port("latents", datatype_of("float32"), (MANY, *loaded.latent.shape))
    if Operation.INTERPOLATE in supported:
        yield Port("start", data, shape)
        yield Port("end", data, shape)
    if "prompt" in parameters:
        yield Port("prompt", data, shape if spec.data.variable else (MANY, MANY))
    if "prompt" in parameters or spec.data.variable:
        yield Port("lengths", "INT32", (MANY,))
    if Operation.INTERPOLATE in supported and spec.data.variable:
        yield Port("end_lengths", "INT32", (MANY,))
    if "stop" in parameters:
        yield Port("stop", BYTES, (MANY,))
    for condition in spec.conditions:
        kinds = {"class": ("INT64", ()), "text": (BYTES, ())}
        kind, shape = kinds.get(condition.kind, ("FP32", condition.shape))
        yield Port(condition.name, kind, (MANY, *shape))


def _outputs(loaded: LoadedModel) -> Iterator[Port]:
    """``data`` as Sample gives it comes after the others, so that whoever keeps one per name keeps that."""
    spec, supported = loaded.spec, _supported(loaded)
    for operation in (each for each in Operation if each in supported):
        yield from (Port(name, "FP64", (MANY,)) for name in _PER_ROW.get(operation, ()))
        yield from (Port(name, "FP32", (MANY, *spec.data.shape)) for name in _MAPS.get(operation, ()))
    if Operation.LIKELIHOOD in supported:
        yield from (Port(name, "INT64", (MANY,)) for name in ("scored_dims", "network_evaluations"))
    if Operation.ENCODE in supported and loaded.latent is not None:
        yield Port("latents", "FP32", (MANY, *loaded.latent.shape))
    if spec.family == "autoregressive" and Operation.SAMPLE in supported:
        yield from (Port(name, "FP64", (MANY,)) for name in ("log_prob", "sampling_log_prob"))
    for operation in (each for each in _GIVE_DATA if each in supported):
        rows = (MANY, MANY) if operation in _NESTED else (MANY,)
        yield Port("data", datatype_of(spec.data.dtype), (*rows, *spec.data.shape))
        if spec.data.variable:
            yield Port("lengths", "INT32", rows)
    if has_text(spec):
        yield Port("text", BYTES, (MANY,))
    if spec.data.variable and Operation.SAMPLE in supported:
        yield Port("finish_reasons", BYTES, (MANY,))


def _supported(loaded: LoadedModel) -> frozenset[Operation]:
    return frozenset(c.operation for c in loaded.capabilities if c.supported)


def _platform(loaded: LoadedModel) -> str:
    return f"pxserve_{loaded.spec.family}"


def _data_type(port: Port) -> pb.DataType.ValueType:
    return pb.DataType.Value("TYPE_STRING" if port.datatype == BYTES else f"TYPE_{port.datatype}")


def _state(state: State) -> str:
    if state in STARTING:
        return "LOADING"
    return state.upper() if state in (State.READY, State.UNLOADING) else "UNAVAILABLE"
