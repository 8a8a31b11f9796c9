"""A denoiser: diffusion, score matching, or flow matching."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from export.adapt.steps import Reshape, Step
from export.adapt.wiring import Wire
from export.model.base import Model, Part, wired
from export.model.network import AnyNetwork, bound
from export.model.record import specification
from export.model.schedules import Schedule
from export.model.spaces import Image, Vector

Prediction = Literal["epsilon", "sample", "v", "score", "flow", "flow_reversed", "edm"]
Time = Literal["step", "fraction", "reversed_fraction", "sigma", "log_sigma", "quarter_log_sigma"]


@specification
class Diffusion(Model):
    """``denoiser``: x, t, conditions -> prediction, for the noisy x = alpha x_0 + sigma e at the time t.

    ``schedule``: alpha and sigma of every training step. ``prediction``: ``epsilon`` (the noise e),
    ``sample`` (x_0), ``v`` (alpha e - sigma x_0), ``score`` (grad log p), ``flow`` (e - x_0),
    ``flow_reversed`` (x_0 - e), ``edm`` (Karras et al. 2022, the raw network F; needs ``sigma_data``).
    ``time``, what t is: ``step`` (index 0 .. T - 1 of the training step; flow: s times ``schedule.steps``),
    ``fraction`` (step / (T - 1); flow: s, 1 = noise), ``reversed_fraction`` (1 - s, 1 = data), ``sigma``
    (sigma / alpha), ``log_sigma`` (its natural logarithm), ``quarter_log_sigma`` (a quarter of that).
    ``time_dtype``: ``int64`` where an embedding table reads t. ``time_shape``: of t in a row, for example
    (1,). ``input_scale``, what the caller of the network multiplies x by: ``none``, ``inverse_rms``
    (1 / sqrt(1 + sigma^2)), ``edm`` (1 / sqrt(sigma_data^2 + sigma^2)).
    ``variance``: of ancestral sampling; ``learned_range`` where the network gives twice the channels.
    ``clip``: clamp the estimate of x_0 to the data's range at every step, unless a request says otherwise.
    ``sampler``, ``steps``: the defaults of requests that name none.
    """

    denoiser: AnyNetwork
    schedule: Schedule
    prediction: Prediction
    time: Time
    time_dtype: Literal["float32", "int64"] = field(default="float32", kw_only=True)
    time_shape: tuple[int, ...] = field(default=(), kw_only=True)
    input_scale: Literal["none", "inverse_rms", "edm"] = field(default="none", kw_only=True)
    variance: Literal["fixed_small", "fixed_large", "learned_range"] = field(
        default="fixed_small", kw_only=True
    )
    clip: bool = field(default=False, kw_only=True)
    sigma_data: float | None = field(default=None, kw_only=True)
    sampler: str | None = field(default=None, kw_only=True)
    steps: Annotated[int, Field(ge=1)] | None = field(default=None, kw_only=True)
    data: Annotated[Image | Vector, Field(discriminator="kind")] = field(kw_only=True)

    family = "diffusion"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.sigma_data is None and "edm" in (self.prediction, self.input_scale):
            raise ValueError("sigma_data: prediction or input_scale edm needs the data's standard deviation")
        if self.clip and not self.data.levels:
            raise ValueError("clip: only images with levels have a range to clamp to")
        if self.time_dtype == "int64" and self.time != "step":
            raise ValueError(f"time_dtype: {self.time} is no whole number; int64 goes with time='step'")
        if (self.prediction in ("flow", "flow_reversed")) != (self.schedule.kind == "straight_path"):
            raise ValueError(
                f"prediction {self.prediction!r} does not go with schedule {self.schedule.kind!r}: flow "
                f"matching is StraightPath() with prediction 'flow' (e - x_0) or 'flow_reversed' (x_0 - e)"
            )
        return self

    def section(self) -> dict[str, Any]:
        """See ``export.package.sections.Diffusion``."""
        optional = {
            "clip_range": self._data_range(),
            "sigma_data": self.sigma_data,
            "default_sampler": self.sampler,
            "default_steps": self.steps,
        }
        return {
            "schedule": self.schedule.section(),
            "prediction": self.prediction,
            "time_input": self.time,
            "input_scale": self.input_scale,
            "variance": self.variance,
            "clip_default": self.clip,
        } | {name: value for name, value in optional.items() if value is not None}

    def parts(self) -> dict[str, Part]:
        """The denoiser."""
        network = bound(self.denoiser)
        channels, *rest = self.data.shape
        doubled = (2 * channels if self.variance == "learned_range" else channels, *rest)
        t = Wire("t", self.time_dtype, (), self._time_steps())
        inputs = (self.data_input(network), t, *self.condition_inputs())
        prediction = self.shaped_output(network, "prediction", doubled)
        return {"denoiser": Part(network, wired(network, inputs, (prediction,)), "x", looped=True)}

    def _time_steps(self) -> tuple[Step, ...]:
        return (Reshape(self.time_shape),) if self.time_shape else ()

    def _data_range(self) -> list[float] | None:
        """Of x_0, in model coordinates, where the data have one."""
        if not self.data.levels:
            return None
        transform = self.data.section()["transform"]
        ends = [
            scale * level + shift
            for scale, shift in zip(transform["scale"], transform["shift"], strict=True)
            for level in (0, self.data.levels - 1)
        ]
        return [min(ends), max(ends)]
