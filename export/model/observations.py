"""p(x | z) of a VAE: which law the decoder's outputs are the parameters of, and in which form they come."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field

from export.adapt.steps import Log, Logit, LogProbability, Scale, Step
from export.model.record import specification

Spread = Literal["log_std", "std", "log_variance", "variance"]

TO_LOG_STD: dict[str, tuple[Step, ...]] = {
    "log_std": (),
    "std": (Log(),),
    "log_variance": (Scale((0.5,)),),
    "variance": (Log(), Scale((0.5,))),
}


@specification
class Bernoulli:
    """Two levels; the decoder gives ``logits`` or ``probabilities`` (sigmoid) of level 1, [rows, *shape]."""

    outputs: Literal["logits", "probabilities"]
    kind: Literal["bernoulli"] = field(default="bernoulli", kw_only=True)

    def section(self) -> dict[str, Any]:
        """``vae.observation`` of ``model.yaml``."""
        return {"kind": "bernoulli"}

    def values(self) -> dict[str, tuple[Step, ...]]:
        """The decoder's outputs in order, and the steps to what the package keeps."""
        return {"logits": (Logit(),) if self.outputs == "probabilities" else ()}


@specification
class Gaussian:
    """Real numbers, or levels as if they were; the decoder gives ``mean`` in model coordinates.

    ``std``: a number, the fixed standard deviation in model coordinates (a decoder trained on the squared
    error alone has the one that you choose: the root mean square error on held-out rows is the likeliest);
    or the form of the decoder's second output: ``log_std``, ``std``, ``log_variance``, ``variance``.
    """

    std: Annotated[float, Field(gt=0)] | Spread
    kind: Literal["gaussian"] = field(default="gaussian", kw_only=True)

    def section(self) -> dict[str, Any]:
        """``vae.observation`` of ``model.yaml``."""
        return {"kind": "gaussian"} | ({} if isinstance(self.std, str) else {"scale": self.std})

    def values(self) -> dict[str, tuple[Step, ...]]:
        """The decoder's outputs in order, and the steps to what the package keeps."""
        if isinstance(self.std, str):
            return {"mean": (), "log_scale": TO_LOG_STD[self.std]}
        return {"mean": ()}


@specification
class DiscretizedLogistic:
    """Levels; the decoder gives ``mean`` and the logistic law's scale, both in model coordinates.

    Salimans et al. 2017, eq. 2, with one component. ``scale``: the form of the second output.
    """

    scale: Literal["log_scale", "scale"]
    kind: Literal["discretized_logistic"] = field(default="discretized_logistic", kw_only=True)

    def section(self) -> dict[str, Any]:
        """``vae.observation`` of ``model.yaml``."""
        return {"kind": "discretized_logistic"}

    def values(self) -> dict[str, tuple[Step, ...]]:
        """The decoder's outputs in order, and the steps to what the package keeps."""
        return {"mean": (), "log_scale": (Log(),) if self.scale == "scale" else ()}


@specification
class Categorical:
    """Levels; the decoder gives [rows, levels, *shape]: ``logits`` or ``probabilities`` (softmax)."""

    outputs: Literal["logits", "probabilities"]
    kind: Literal["categorical"] = field(default="categorical", kw_only=True)

    def section(self) -> dict[str, Any]:
        """``vae.observation`` of ``model.yaml``."""
        return {"kind": "categorical"}

    def values(self) -> dict[str, tuple[Step, ...]]:
        """The decoder's outputs in order, and the steps to what the package keeps."""
        return {"logits": (LogProbability(),) if self.outputs == "probabilities" else ()}


ObservationModel = Annotated[
    Bernoulli | Gaussian | DiscretizedLogistic | Categorical, Field(discriminator="kind")
]
