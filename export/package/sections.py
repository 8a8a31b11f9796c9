"""The sections of ``model.yaml`` about families: what each one's networks mean."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from export.package.grid import Grid, Solver
from export.package.record import Record, Size
from export.package.schedules import FlowSchedule, VeSchedule, VpSchedule


class CacheLayout(Record):
    """Key/value cache of the ``decoder`` component: per layer ``past_key_i`` and ``past_value_i``.

    Each is ``[rows, kv_heads, max_length, head_dim]``, input and output bound to one buffer.
    """

    layers: Size
    kv_heads: Size
    head_dim: Size
    max_length: Size


class Autoregressive(Record):
    """Chain rule over symbols in data order (images: raster), or in ``order``.

    ``order``: the place of every symbol in the flattened row, in the order in which they are met; symbol i
    below is then the i-th of these.

    Component ``scorer``: ``tokens`` int64 [rows, length] -> ``logits`` [rows, length, vocabulary];
    ``logits[:, i]`` predicts data symbol i from ``tokens[:, : i + 1]``; ``tokens[:, 0]`` is the begin
    symbol, so ``tokens[:, i]`` is data symbol i - 1. Where ``shifted_input`` is false (masked
    convolutions), ``tokens[:, i]`` is data symbol i itself, ``logits[:, i]`` ignores it and all later
    ones, and there is no begin symbol.
    Component ``decoder`` (with ``cache``): ``tokens`` int64 [rows, new], ``seqlens_k`` int32 [rows]
    (tokens in the cache after the call, minus 1), ``total_sequence_length`` int32 scalar -> ``logits``
    [rows, new, vocabulary]. A decoder that also takes ``wanted`` and ``targets`` int64 [predictions] (indices
    row * new + i, and symbols) gives ``logits`` [predictions, vocabulary] and ``log_prob`` [predictions], its
    caches have any length, and the package needs no ``scorer``.
    ``tokenizer`` huggingface: the file ``tokenizer.json`` of the package, for the library ``tokenizers``.
    """

    vocabulary: Annotated[int, Field(ge=2)]
    shifted_input: bool = True
    begin_symbol: int | None = None  # input id of the begin symbol where no condition selects it
    begin_condition: str | None = None  # class condition whose value v selects begin_offset + v
    begin_offset: int = 0
    end_symbol: int | None = None  # symbol that ends a row of variable length
    other_end_symbols: tuple[int, ...] = ()  # further ones that do
    tokenizer: Literal["none", "bytes", "huggingface"] = "none"
    cache: CacheLayout | None = None
    order: tuple[int, ...] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.order is not None and sorted(self.order) != list(range(len(self.order))):
            raise ValueError("autoregressive: order must name every place of a row once")
        return self

    @model_validator(mode="after")
    def _begins(self) -> Self:
        if self.shifted_input and self.begin_symbol is None and self.begin_condition is None:
            raise ValueError("autoregressive: name begin_symbol or begin_condition")
        if self.other_end_symbols and self.end_symbol is None:
            raise ValueError("autoregressive: other_end_symbols need end_symbol, the first of them")
        return self

    @property
    def end_symbols(self) -> tuple[int, ...]:
        """Every symbol that ends a row of variable length."""
        return () if self.end_symbol is None else (self.end_symbol, *self.other_end_symbols)


class Autoencoder(Record):
    """``encoder``: x -> latent; ``decoder``: latent -> x. No density."""

    latent_shape: tuple[Size, ...]


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

    latent_shape: tuple[Size, ...]
    observation: Observation


class Gan(Record):
    """``generator``: latent ~ N(0, I) -> x; ``discriminator`` (optional): x -> ``logit``.

    ``encoder`` (optional): x -> latent, the start of an inversion.
    """

    latent_shape: tuple[Size, ...]


class Diffusion(Record):
    """``denoiser``: ``x`` [rows, *shape], ``t`` [rows], conditions by name -> ``prediction``.

    latent_shape: the process runs in latents of this shape (Rombach et al. 2022); ``encoder``: x [rows,
    *data.shape] -> ``latent`` as the process sees it, ``decoder``: back.
    prediction: epsilon (e), sample (x_0), v (alpha e - sigma x_0), score (grad log p_t),
    flow (e - x_0, d x / d s), flow_reversed (x_0 - e), edm (raw F of Karras et al., needs sigma_data),
    edm_negated (-F).
    time_input: step (index of the level; flow: s * training_steps), fraction (level / (T - 1); flow: s),
    reversed_fraction (1 - s), sigma, log_sigma (ln sigma), quarter_log_sigma (ln(sigma) / 4).
    input_scale: none, inverse_rms (1 / sqrt(1 + sigma^2)), edm (1 / sqrt(sigma_data^2 + sigma^2)).
    clipped_noise: after x_0 was clipped DDIM goes on with the noise that it implies, or with the one that the
    network predicted.
    """

    schedule: Annotated[VpSchedule | VeSchedule | FlowSchedule, Field(discriminator="kind")]
    prediction: Literal["epsilon", "sample", "v", "score", "flow", "flow_reversed", "edm", "edm_negated"]
    time_input: Literal["step", "fraction", "reversed_fraction", "sigma", "log_sigma", "quarter_log_sigma"]
    input_scale: Literal["none", "inverse_rms", "edm"] = "none"
    variance: Literal["fixed_small", "fixed_large", "learned_range"] = "fixed_small"
    clip_range: tuple[float, float] | None = None  # of x_0, in model coordinates
    clip_default: bool = False
    clipped_noise: Literal["implied", "predicted"] = "implied"
    threshold_default: Annotated[float, Field(gt=0.0, le=1.0)] | None = None  # quantile, unless asked else
    threshold_limit: Annotated[float, Field(ge=1.0)] | None = None  # largest bound of dynamic thresholding
    sigma_data: float | None = None
    latent_shape: tuple[Size, Size, Size] | None = None
    grid: Grid | None = None
    solver: Solver | None = None
    default_sampler: str | None = None
    default_steps: Size | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.sigma_data is None and {"edm", "edm_negated"} & {self.prediction, self.input_scale}:
            raise ValueError("diffusion: prediction or input_scale edm needs sigma_data")
        if self.clip_range is not None and self.clip_range[0] >= self.clip_range[1]:
            raise ValueError("diffusion: clip_range must ascend")
        if (self.clip_default or self.threshold_default is not None) and self.clip_range is None:
            raise ValueError("diffusion: clip_default and threshold_default need clip_range")
        return self
