"""The schema of ``model.yaml``: what a model package says about itself.

Unknown keys are refused, and every rule that one file can break on its own is checked here, so that
code behind this module never meets a package that contradicts itself.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

FORMAT_VERSION = 1

DType = Literal["bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32", "float64"]
FamilyName = Literal["autoregressive", "autoencoder", "vae", "gan", "diffusion"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

MODEL_NAME = re.compile(r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")


class Record(BaseModel):
    """Base of every section: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TensorSpec(Record):
    """One input or output of a graph; ``shape`` mixes sizes with names of dynamic axes."""

    name: str
    dtype: DType
    shape: tuple[int | str, ...]

    @property
    def row_shape(self) -> tuple[int | str, ...]:
        """The shape without its leading ``rows`` axis."""
        return self.shape[1:]


class Component(Record):
    """One network: a graph file with named inputs and outputs, whose first axis is ``rows``."""

    format: Literal["onnx", "torchscript"]
    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    device: Literal["any", "cpu", "cuda"] = "any"


class Affine(Record):
    """Model value = scale * data value + shift, per channel (one entry: for all of them)."""

    kind: Literal["affine"] = "affine"
    scale: tuple[float, ...] = (1.0,)
    shift: tuple[float, ...] = (0.0,)

    @model_validator(mode="after")
    def _matching(self) -> Self:
        if len(self.scale) != len(self.shift) or 0.0 in self.scale:
            raise ValueError("transform: scale and shift need the same length, and no scale may be 0")
        return self


class Identity(Record):
    """Model values are the data values (token ids, vectors)."""

    kind: Literal["identity"] = "identity"


class DataSpace(Record):
    """What a row is to the user: levels of an image, token ids, or a vector of floats."""

    kind: Literal["image", "tokens", "vector"]
    axes: tuple[str, ...]
    shape: tuple[int, ...]  # -1: variable length (tokens only)
    dtype: DType
    levels: int = 0  # number of integer values (0 .. levels-1); 0 for real data
    transform: Annotated[Affine | Identity, Field(discriminator="kind")] = Identity()
    max_length: int = 0  # of a variable axis

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.axes) != len(self.shape):
            raise ValueError(f"data: {len(self.axes)} axes but {len(self.shape)} sizes")
        if -1 in self.shape and (self.kind != "tokens" or self.max_length < 1):
            raise ValueError("data: a variable axis (-1) needs kind tokens and max_length")
        if self.kind == "tokens" and self.levels < 2:
            raise ValueError("data: tokens need levels (the size of the vocabulary)")
        return self

    @property
    def variable(self) -> bool:
        """Whether rows may differ in length."""
        return -1 in self.shape

    @property
    def elements(self) -> int:
        """Elements of one row (at most, where the length varies)."""
        return math.prod(self.max_length if size == -1 else size for size in self.shape)


class Condition(Record):
    """A named input of the user's that the model was trained to depend on."""

    name: str
    kind: Literal["class", "vector"]
    classes: int = 0
    class_names: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    null_value: int | None = None  # the class id that means "none given"
    when_absent: Literal["required", "null"] = "required"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "class" and self.classes < 1:
            raise ValueError(f"condition {self.name}: a class condition needs classes")
        if self.when_absent == "null" and self.null_value is None and self.kind == "class":
            raise ValueError(f"condition {self.name}: when_absent null needs null_value")
        if self.class_names and len(self.class_names) != self.classes:
            raise ValueError(f"condition {self.name}: {self.classes} classes need as many names")
        return self


class CacheLayout(Record):
    """Key/value cache of the ``decoder`` component: per layer ``past_key_i`` and ``past_value_i``.

    Each is ``[rows, kv_heads, max_length, head_dim]``, input and output bound to one buffer.
    """

    layers: int
    kv_heads: int
    head_dim: int
    max_length: int


class Autoregressive(Record):
    """Chain rule over symbols in data order (images: raster).

    Component ``scorer``: ``tokens`` int64 [rows, length] -> ``logits`` [rows, length, vocabulary];
    ``logits[:, i]`` predicts data symbol i from ``tokens[:, : i + 1]``; ``tokens[:, 0]`` is the begin
    symbol, so ``tokens[:, i]`` is data symbol i - 1. Where ``shifted_input`` is false (masked
    convolutions), ``tokens[:, i]`` is data symbol i itself, ``logits[:, i]`` ignores it and all later
    ones, and there is no begin symbol.
    Component ``decoder`` (with ``cache``): ``tokens`` int64 [rows, new], ``seqlens_k`` int32 [rows]
    (tokens in the cache after the call, minus 1), ``total_sequence_length`` int32 scalar -> ``logits``
    [rows, new, vocabulary].
    """

    vocabulary: int
    shifted_input: bool = True
    begin_symbol: int | None = None  # input id of the begin symbol where no condition selects it
    begin_condition: str | None = None  # class condition whose value v selects begin_offset + v
    begin_offset: int = 0
    end_symbol: int | None = None  # symbol that ends a row of variable length
    tokenizer: Literal["none", "bytes"] = "none"
    cache: CacheLayout | None = None

    @model_validator(mode="after")
    def _begins(self) -> Self:
        if self.shifted_input and self.begin_symbol is None and self.begin_condition is None:
            raise ValueError("autoregressive: name begin_symbol or begin_condition")
        return self


class Autoencoder(Record):
    """``encoder``: x -> latent; ``decoder``: latent -> x. No density."""

    latent_shape: tuple[int, ...]


class Observation(Record):
    """p(x | z) of a VAE, read from the decoder's outputs (all in model coordinates).

    bernoulli: output ``logits``; gaussian: ``mean`` and, unless ``scale`` is given, ``log_scale``
    (log standard deviation); discretized_logistic: ``mean`` and ``log_scale``, bins of one level
    with open ends; categorical: ``logits`` [rows, levels, *shape].
    """

    kind: Literal["bernoulli", "gaussian", "discretized_logistic", "categorical"]
    scale: float | None = None


class Vae(Record):
    """``encoder``: x -> ``mean``, ``log_variance``; ``decoder``: latent -> observation parameters."""

    latent_shape: tuple[int, ...]
    observation: Observation


class Gan(Record):
    """``generator``: latent ~ N(0, I) -> x; ``discriminator`` (optional): x -> ``logit``.

    ``encoder`` (optional): x -> latent, the start of an inversion.
    """

    latent_shape: tuple[int, ...]


class VpSchedule(Record):
    """Variance preserving: x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) e, abar = cumprod(1 - beta)."""

    kind: Literal["vp"] = "vp"
    betas: tuple[float, ...]

    @field_validator("betas")
    @classmethod
    def _in_range(cls, betas: tuple[float, ...]) -> tuple[float, ...]:
        if len(betas) < 2 or not all(0.0 < b < 1.0 for b in betas):
            raise ValueError("schedule: betas must lie in (0, 1), at least two of them")
        return betas


class VeSchedule(Record):
    """Variance exploding: x_t = x_0 + sigma_t e; sigmas ascend with the training step."""

    kind: Literal["ve"] = "ve"
    sigmas: tuple[float, ...]

    @field_validator("sigmas")
    @classmethod
    def _ascending(cls, sigmas: tuple[float, ...]) -> tuple[float, ...]:
        if len(sigmas) < 2 or sigmas[0] <= 0 or any(b <= a for a, b in pairwise(sigmas)):
            raise ValueError("schedule: sigmas must be positive and ascend, at least two of them")
        return sigmas


class FlowSchedule(Record):
    """Straight paths: x_s = (1 - s) x_0 + s e for s in [0, 1] (s = 1 is noise)."""

    kind: Literal["flow"] = "flow"
    training_steps: int = 1000  # multiplies s where time_input is "step"


class Diffusion(Record):
    """``denoiser``: ``x`` [rows, *shape], ``t`` [rows], conditions by name -> ``prediction``.

    prediction: epsilon (e), sample (x_0), v (alpha e - sigma x_0), score (grad log p_t),
    flow (e - x_0, d x / d s), flow_reversed (x_0 - e), edm (raw F of Karras et al., needs sigma_data).
    time_input: step (index of the level; flow: s * training_steps), fraction (level / (T - 1); flow: s),
    reversed_fraction (1 - s), sigma, log_sigma (ln sigma), quarter_log_sigma (ln(sigma) / 4).
    input_scale: none, inverse_rms (1 / sqrt(1 + sigma^2)), edm (1 / sqrt(sigma_data^2 + sigma^2)).
    """

    schedule: Annotated[VpSchedule | VeSchedule | FlowSchedule, Field(discriminator="kind")]
    prediction: Literal["epsilon", "sample", "v", "score", "flow", "flow_reversed", "edm"]
    time_input: Literal["step", "fraction", "reversed_fraction", "sigma", "log_sigma", "quarter_log_sigma"]
    input_scale: Literal["none", "inverse_rms", "edm"] = "none"
    variance: Literal["fixed_small", "fixed_large", "learned_range"] = "fixed_small"
    clip_range: tuple[float, float] | None = None  # of x_0, in model coordinates
    clip_default: bool = False
    sigma_data: float | None = None
    default_sampler: str | None = None
    default_steps: int | None = None


class Parity(Record):
    """How far the graphs are from the network they were exported from."""

    max_abs_error: float
    max_rel_error: float
    inputs: str  # which inputs were compared


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
    disabled_operations: tuple[str, ...] = ()
    parity: Parity
    provenance: dict[str, str] = {}
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
    def _components_listed(self) -> Self:
        for name, component in self.components.items():
            if component.file not in self.files:
                raise ValueError(f"components.{name}: file {component.file!r} has no entry under files")
        return self
