"""What a VAE's decoder says about x: p(x | z) per element, factorised.

Outputs and x are in model coordinates; log-probabilities are float64 in *data space*, so nothing is
converted afterwards. The discrete models give masses (counting measure), the Gaussian a density.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch

from export.package.schema import DataSpace, Observation
from kernels.philox import STREAM_STEP
from serving.families import units
from serving.families.latent.gaussian import HALF_LOG_2PI
from serving.families.latent.lanes import Lanes
from serving.families.result import BaseMeasure
from serving.families.rows import Tensors


class ObservationModel(ABC):
    """p(x | z) from decoder outputs, all [lanes, *shape]."""

    base_measure: BaseMeasure

    def __init__(self, space: DataSpace) -> None:
        self.space = space
        self.scale = torch.from_numpy(units.scale(space))  # float64, broadcastable to a row
        self.shift = torch.from_numpy(units.shift(space))

    @abstractmethod
    def log_prob(self, outputs: Tensors, x: torch.Tensor) -> torch.Tensor:
        """ln p(x_i | z) per element in data space, float64 [lanes, *shape]."""

    @abstractmethod
    def slopes(self, outputs: Tensors, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """d ln p(x_i | z) / d output by output name, float64, shaped like the outputs."""

    @abstractmethod
    def moments(self, outputs: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance of x in model coordinates, float64 [lanes, *shape]."""

    @abstractmethod
    def sample(self, outputs: Tensors, lanes: Lanes, line: int) -> torch.Tensor:
        """A draw of x in model coordinates, float32 [lanes, *shape]."""

    def mean(self, outputs: Tensors) -> torch.Tensor:
        """Mean of x in model coordinates, float32."""
        return self.moments(outputs)[0].float()

    def to_levels(self, x: torch.Tensor) -> torch.Tensor:
        """Data values of model coordinates, float64."""
        return (x.double() - self.shift.to(x.device)) / self.scale.to(x.device)

    def from_levels(self, levels: torch.Tensor) -> torch.Tensor:
        """Model coordinates of data values, float32."""
        levels = levels.double()
        return (levels * self.scale.to(levels.device) + self.shift.to(levels.device)).float()

    def _level_moments(self, mean: torch.Tensor, variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of levels, to model coordinates."""
        scale = self.scale.to(mean.device)
        return mean * scale + self.shift.to(mean.device), variance * scale.square()

    def _uniform(self, lanes: Lanes, line: int, shape: torch.Size) -> torch.Tensor:
        return lanes.uniform(STREAM_STEP, line, math.prod(shape[1:])).reshape(shape).double()


class Bernoulli(ObservationModel):
    """Two levels; ``logits`` of level 1."""

    base_measure = BaseMeasure.COUNTING

    def log_prob(self, outputs: Tensors, x: torch.Tensor) -> torch.Tensor:
        """ln sigmoid(+-logits)."""
        logits = outputs["logits"].double()
        return torch.nn.functional.logsigmoid(torch.where(self.to_levels(x) > 0.5, logits, -logits))

    def slopes(self, outputs: Tensors, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Level - P(1)."""
        level = (self.to_levels(x) > 0.5).double()
        return {"logits": level - torch.sigmoid(outputs["logits"].double())}

    def moments(self, outputs: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """P(1) and P(1) (1 - P(1)), as levels."""
        p = torch.sigmoid(outputs["logits"].double())
        return self._level_moments(p, p * (1.0 - p))

    def sample(self, outputs: Tensors, lanes: Lanes, line: int) -> torch.Tensor:
        """Level 1 where a uniform is below P(1)."""
        p = torch.sigmoid(outputs["logits"].double())
        return self.from_levels(self._uniform(lanes, line, p.shape) < p)


class Gaussian(ObservationModel):
    """``mean``, and a standard deviation in model coordinates: fixed, or exp(``log_scale``).

    A density with respect to Lebesgue measure on data values, also where the data are levels.
    """

    base_measure = BaseMeasure.LEBESGUE

    def __init__(self, space: DataSpace, std: float | torch.Tensor | None) -> None:
        super().__init__(space)
        self.fixed = None if std is None else torch.as_tensor(std, dtype=torch.float64)

    def log_prob(self, outputs: Tensors, x: torch.Tensor) -> torch.Tensor:
        """ln N(x; mean, std^2) + ln|scale|."""
        mean, std = self._parameters(outputs)
        inside = -0.5 * ((x.double() - mean) / std).square() - std.log() - HALF_LOG_2PI
        return inside + self.scale.abs().log().to(mean.device)

    def slopes(self, outputs: Tensors, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """r / std and r^2 - 1 for the standardised residual r."""
        mean, std = self._parameters(outputs)
        residual = (x.double() - mean) / std
        return {"mean": residual / std, "log_scale": residual.square() - 1.0}

    def moments(self, outputs: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """As given."""
        mean, std = self._parameters(outputs)
        return mean, std.square().expand_as(mean)

    def sample(self, outputs: Tensors, lanes: Lanes, line: int) -> torch.Tensor:
        """mean + std * noise."""
        mean, std = self._parameters(outputs)
        noise = lanes.normal(STREAM_STEP, line, math.prod(mean.shape[1:])).reshape(mean.shape)
        return (mean + std * noise.double()).float()

    def _parameters(self, outputs: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        mean = outputs["mean"].double()
        if self.fixed is not None:
            return mean, self.fixed.to(mean.device)
        return mean, outputs["log_scale"].double().exp()


class DiscretizedLogistic(ObservationModel):
    """Logistic mass of the cell around each level, open at both ends (Salimans et al. 2017, eq. 2).

    ``mean`` and ``log_scale`` are those of the logistic law in model coordinates.
    """

    base_measure = BaseMeasure.COUNTING

    def log_prob(self, outputs: Tensors, x: torch.Tensor) -> torch.Tensor:
        """ln(sigmoid(a) - sigmoid(b)) = ln sigmoid(a) + ln sigmoid(-b) + ln(1 - exp(b - a)), a > b."""
        mean, scale = self._in_levels(outputs)
        level = torch.round(self.to_levels(x))
        above, below = (level + 0.5 - mean) / scale, (level - 0.5 - mean) / scale
        log_sigmoid = torch.nn.functional.logsigmoid
        up, down = log_sigmoid(above), log_sigmoid(-below)
        inside = up + down + torch.log(-torch.expm1(-1.0 / scale))
        return torch.where(level <= 0, up, torch.where(level >= self.space.levels - 1, down, inside))

    def slopes(self, outputs: Tensors, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Of ln sigmoid(a) + ln sigmoid(-b) + ln(1 - e^(b - a)); open ends keep the term of their edge."""
        mean, scale = self._in_levels(outputs)
        level = torch.round(self.to_levels(x))
        above, below = (level + 0.5 - mean) / scale, (level - 0.5 - mean) / scale
        lowest, highest = level <= 0, level >= self.space.levels - 1
        up = torch.where(highest, 0.0, torch.sigmoid(-above))
        down = torch.where(lowest, 0.0, torch.sigmoid(below))
        width = torch.where(lowest | highest, 0.0, (1.0 / scale) / torch.expm1(1.0 / scale))
        return {
            "mean": (down - up) / scale / self.scale.to(mean.device),
            "log_scale": below * down - above * up - width,
        }

    def moments(self, outputs: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """E X = sum_l P(X >= l) and E X^2 = sum_l (2 l - 1) P(X >= l) over levels l >= 1."""
        mean, scale = self._in_levels(outputs)
        first, second = torch.zeros_like(mean), torch.zeros_like(mean)
        for level in range(1, self.space.levels):
            tail = torch.sigmoid((mean - level + 0.5) / scale)
            first, second = first + tail, second + (2 * level - 1) * tail
        return self._level_moments(first, (second - first.square()).clamp_min(0.0))

    def sample(self, outputs: Tensors, lanes: Lanes, line: int) -> torch.Tensor:
        """A logistic variate by its quantile, rounded to the nearest level and clamped: the same law."""
        mean, scale = self._in_levels(outputs)
        level = mean + scale * torch.logit(self._uniform(lanes, line, mean.shape))
        return self.from_levels(torch.floor(level + 0.5).clamp(0, self.space.levels - 1))

    def _in_levels(self, outputs: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        mean = self.to_levels(outputs["mean"])
        width = self.scale.abs().to(mean.device)
        return mean, (outputs["log_scale"].double().exp() / width).expand_as(mean)


class Categorical(ObservationModel):
    """``logits`` [lanes, levels, *shape]."""

    base_measure = BaseMeasure.COUNTING

    def log_prob(self, outputs: Tensors, x: torch.Tensor) -> torch.Tensor:
        """Log-softmax at the level of x."""
        log_p = torch.log_softmax(outputs["logits"].double(), dim=1)
        level = torch.round(self.to_levels(x)).clamp(0, self.space.levels - 1).long()
        return log_p.gather(1, level.unsqueeze(1)).squeeze(1)

    def slopes(self, outputs: Tensors, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """One-hot minus softmax."""
        p = torch.softmax(outputs["logits"].double(), dim=1)
        level = torch.round(self.to_levels(x)).clamp(0, self.space.levels - 1).long()
        return {"logits": torch.zeros_like(p).scatter_(1, level.unsqueeze(1), 1.0) - p}

    def moments(self, outputs: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the level."""
        p = torch.softmax(outputs["logits"].double(), dim=1)
        level = torch.arange(self.space.levels, device=p.device, dtype=torch.float64)
        level = level.reshape(-1, *(1,) * (p.dim() - 2))
        mean = (p * level).sum(dim=1)
        return self._level_moments(mean, (p * (level - mean.unsqueeze(1)).square()).sum(dim=1))

    def sample(self, outputs: Tensors, lanes: Lanes, line: int) -> torch.Tensor:
        """Levels below a uniform in the cumulative distribution."""
        cumulative = torch.softmax(outputs["logits"].double(), dim=1).cumsum(dim=1)
        uniform = self._uniform(lanes, line, cumulative[:, 0].shape)
        level = (cumulative[:, :-1] <= uniform.unsqueeze(1)).sum(dim=1)
        return self.from_levels(level)


def observation_model(space: DataSpace, observation: Observation) -> ObservationModel:
    """The model that a package declares; ValueError where it does not fit the data."""
    kind = observation.kind
    if kind == "gaussian":
        return Gaussian(space, observation.scale)
    if space.levels < 2 or (kind == "bernoulli" and space.levels != 2):
        needed = "two levels" if kind == "bernoulli" else "levels"
        raise ValueError(f"observation {kind}: is a probability only over {needed}, data have {space.levels}")
    if kind == "bernoulli":
        return Bernoulli(space)
    return DiscretizedLogistic(space) if kind == "discretized_logistic" else Categorical(space)
