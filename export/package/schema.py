"""The schema of ``model.yaml``: what a model package says about itself.

Unknown keys are refused, and every rule that one file can break on its own is checked here, so that
code behind this module never meets a package that contradicts itself.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from export.package.data_space import Affine, Condition, DataSpace, Identity, Palette
from export.package.record import DType, Record, Size
from export.package.schedules import FlowSchedule, VeSchedule, VpSchedule
from export.package.sections import Autoencoder, Autoregressive, CacheLayout, Diffusion, Gan, Observation, Vae

__all__ = [
    "FORMAT_VERSION",
    "MODEL_NAME",
    "TOKENIZER_FILE",
    "Affine",
    "Autoencoder",
    "Autoregressive",
    "CacheLayout",
    "Component",
    "Condition",
    "DType",
    "DataSpace",
    "Diffusion",
    "FamilyName",
    "FlowSchedule",
    "Gan",
    "Identity",
    "ModelSpec",
    "Observation",
    "OperationName",
    "Palette",
    "Parity",
    "Record",
    "TensorSpec",
    "Vae",
    "Variant",
    "VeSchedule",
    "VpSchedule",
]

FORMAT_VERSION = 1
TOKENIZER_FILE = "tokenizer.json"

FamilyName = Literal["autoregressive", "autoencoder", "vae", "gan", "diffusion"]
OperationName = Literal[
    "sample", "likelihood", "inpaint", "score_anomaly", "encode", "decode", "reconstruct", "interpolate"
]
GraphKind = Literal["float32", "float16", "bfloat16", "int8", "int4"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

MODEL_NAME = re.compile(r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")


class TensorSpec(Record):
    """One input or output of a graph; ``shape`` mixes sizes with names of dynamic axes."""

    name: str
    dtype: DType
    shape: tuple[Size | str, ...]

    @property
    def row_shape(self) -> tuple[int | str, ...]:
        """The shape without its leading ``rows`` axis."""
        return self.shape[1:]


class Parity(Record):
    """How far the graphs are from the network they were exported from."""

    max_abs_error: float
    max_rel_error: float  # relative to the largest absolute value of the output
    inputs: str  # which inputs were compared
    batch_invariant: bool | None = None  # whether rows gave the same bits alone and in every batch tried
    log_prob_error: float | None = None  # mean absolute difference of log p(symbol), nats per symbol


class Variant(Record):
    """Another graph of the same network: other numbers inside, the same inputs and outputs by name.

    ``weights``: how its matrices are stored; ``parity`` with the source, as measured for this graph.
    """

    format: Literal["onnx", "torchscript"]
    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    weights: Literal["same", "int8", "int4"] = "same"
    device: Literal["any", "cpu", "cuda"] = "any"
    parity: Parity | None = None


class Component(Record):
    """One network: a graph file with named inputs and outputs, whose first axis is ``rows``."""

    format: Literal["onnx", "torchscript"]
    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    weights: Literal["same", "int8", "int4"] = "same"
    device: Literal["any", "cpu", "cuda"] = "any"
    variants: tuple[Variant, ...] = ()

    @property
    def graphs(self) -> tuple[Component, ...]:
        """This graph and its variants, each as a component of its own."""
        own = {key: value for key, value in self if key != "variants"}
        others = ({key: value for key, value in variant if key != "parity"} for variant in self.variants)
        return tuple(Component.model_validate(graph) for graph in (own, *others))

    @property
    def kind(self) -> str:
        """float32, float16, bfloat16, or how its matrices are stored: int8, int4."""
        return self.precision if self.weights == "same" else self.weights


class ModelSpec(Record):
    """The whole of ``model.yaml``."""

    format_version: Literal[1]
    name: str
    family: FamilyName
    description: str
    license: str
    data: DataSpace
    conditions: tuple[Condition, ...] = ()
    components: dict[str, Component]
    autoregressive: Autoregressive | None = None
    autoencoder: Autoencoder | None = None
    vae: Vae | None = None
    gan: Gan | None = None
    diffusion: Diffusion | None = None
    disabled_operations: tuple[OperationName, ...] = ()
    parity: Parity
    provenance: dict[str, str] = Field(default_factory=dict)
    files: dict[str, Sha256]

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        if not MODEL_NAME.match(name):
            raise ValueError("name: lower-case letters, digits, '.', '_' and '-', at most 64 of them")
        return name

    @model_validator(mode="after")
    def _one_family(self) -> Self:
        for family in ("autoregressive", "autoencoder", "vae", "gan", "diffusion"):
            if (getattr(self, family) is not None) != (family == self.family):
                raise ValueError(
                    f"{family}: the section of the family {self.family!r}, and only it, must be there"
                )
        return self

    @model_validator(mode="after")
    def _conditions_named(self) -> Self:
        names = [condition.name for condition in self.conditions]
        if len(set(names)) != len(names):
            raise ValueError("conditions: a name appears twice")
        begin = self.autoregressive.begin_condition if self.autoregressive else None
        if begin is not None and begin not in names:
            raise ValueError(f"autoregressive.begin_condition: there is no condition {begin!r}")
        return self

    @model_validator(mode="after")
    def _components_listed(self) -> Self:
        for name, component in self.components.items():
            for file in (component.file, *(variant.file for variant in component.variants)):
                if file not in self.files:
                    raise ValueError(f"components.{name}: file {file!r} has no entry under files")
        return self

    @model_validator(mode="after")
    def _tokenizer_listed(self) -> Self:
        if sum(condition.kind == "text" for condition in self.conditions) > 1:
            raise ValueError("conditions: one text at most")
        if any(c.kind == "text" for c in self.conditions) and TOKENIZER_FILE not in self.files:
            raise ValueError(f"conditions: a text needs {TOKENIZER_FILE!r} under files")
        tokenizer = self.autoregressive.tokenizer if self.autoregressive else "none"
        if tokenizer == "huggingface" and TOKENIZER_FILE not in self.files:
            raise ValueError(f"autoregressive.tokenizer: {TOKENIZER_FILE!r} has no entry under files")
        return self
