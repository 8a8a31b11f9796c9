"""The forward process x = alpha x0 + sigma e in float64, and what the network's inputs and outputs mean.

Levels of the three schedules (Song et al. 2021 for VP and VE, Lipman et al. 2023 for flow): VP has
alpha^2 + sigma^2 = 1, VE alpha = 1, flow alpha = 1 - s and sigma = s. Every formula here is written for
any (alpha, sigma), with the relative noise r = sigma / alpha where a convention speaks of "sigma".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.package.schema import Diffusion, FlowSchedule, VeSchedule, VpSchedule

Floats = NDArray[np.float64]
LARGEST_RATIO = 160.0  # of VP, where sampling and integrating may begin


@dataclass(frozen=True)
class Levels:
    """Noise levels, float64 [n]: ``time`` is what the network is told, nan where it is never asked."""

    alpha: Floats
    sigma: Floats
    time: Floats

    def __len__(self) -> int:
        return len(self.alpha)

    def __getitem__(self, index: slice | NDArray[np.int64]) -> Levels:
        return Levels(self.alpha[index], self.sigma[index], self.time[index])

    @property
    def ratio(self) -> Floats:
        """sigma / alpha: noise relative to the signal; inf where there is no signal."""
        with np.errstate(divide="ignore"):
            return np.asarray(self.sigma / self.alpha, np.float64)

    def followed_by(self, other: Levels) -> Levels:
        """These levels, then the other ones."""
        pairs = ((self.alpha, other.alpha), (self.sigma, other.sigma), (self.time, other.time))
        return Levels(*(np.concatenate(pair) for pair in pairs))

    def to_clean(self) -> Levels:
        """The same, followed by the data itself (alpha 1, sigma 0)."""
        return Levels(np.append(self.alpha, 1.0), np.append(self.sigma, 0.0), np.append(self.time, np.nan))


class Process:
    """One package's process. ``integer_time``: the network takes whole steps only."""

    def __init__(self, spec: Diffusion, integer_time: bool = False) -> None:
        self.spec = spec
        self.integer_time = integer_time
        self.is_flow = isinstance(spec.schedule, FlowSchedule)
        self._alpha, self._sigma = _tables(spec.schedule)
        self.count = len(self._alpha)
        with np.errstate(divide="ignore"):
            self._log_ratio = None if self.is_flow else np.log(self._sigma / self._alpha)

    @property
    def initial_sd(self) -> float:
        """Standard deviation of the state that sampling starts from: sigma_max under VE, else 1."""
        return float(self._sigma[-1]) if isinstance(self.spec.schedule, VeSchedule) else 1.0

    @property
    def ratio_range(self) -> tuple[float, float]:
        """Smallest and largest relative noise of the schedule (VP and VE)."""
        assert self._log_ratio is not None
        return float(np.exp(self._log_ratio[0])), float(np.exp(self._log_ratio[-1]))

    @property
    def sampled_ratio_range(self) -> tuple[float, float]:
        """The same, without the levels of VP at which no signal is left: their start is N(0, I) anyway."""
        low, high = self.ratio_range
        return low, min(high, LARGEST_RATIO) if isinstance(self.spec.schedule, VpSchedule) else high

    def at(self, index: NDArray[np.generic] | list[int]) -> Levels:
        """Levels of the training steps ``index`` (whole numbers for VP and VE; flow: s * training_steps)."""
        steps = np.asarray(index, np.float64)
        if self.is_flow:
            return self.at_flow(steps / self.count)
        whole = steps.astype(np.int64)
        return self.told(self._alpha[whole], self._sigma[whole], steps)

    def at_flow(self, s: Floats, steps: Floats | None = None) -> Levels:
        """Levels of a flow at times s in [0, 1]; ``steps``: where the network is told to be (None: at s)."""
        s = np.asarray(s, np.float64)
        return self.told(1.0 - s, s, s * self.count if steps is None else steps)

    def at_ratio(self, ratio: Floats) -> Levels:
        """Levels of VP and VE with the given relative noise; ln ratio is linear between training steps."""
        assert self._log_ratio is not None
        steps = np.interp(np.log(ratio), self._log_ratio, np.arange(self.count, dtype=np.float64))
        if self.integer_time:
            return self.at(np.rint(steps))
        r = np.clip(np.asarray(ratio, np.float64), *self.ratio_range)
        alpha = 1.0 / np.sqrt(1.0 + r * r) if isinstance(self.spec.schedule, VpSchedule) else np.ones_like(r)
        return self.told(alpha, r * alpha, steps)

    def told(self, alpha: Floats, sigma: Floats, steps: Floats) -> Levels:
        """Levels anywhere, with what the network is told of them at the training steps ``steps``."""
        return Levels(alpha, sigma, self._time(alpha, sigma, steps))

    def _time(self, alpha: Floats, sigma: Floats, steps: Floats) -> Floats:
        kind = self.spec.time_input
        if kind == "step":
            return steps
        if kind in ("fraction", "reversed_fraction"):
            fraction = steps / (self.count if self.is_flow else self.count - 1)
            return fraction if kind == "fraction" else 1.0 - fraction
        with np.errstate(divide="ignore"):
            ratio = sigma / alpha
            values = {"sigma": ratio, "log_sigma": np.log(ratio), "quarter_log_sigma": np.log(ratio) / 4.0}
        return np.asarray(values[kind], np.float64)

    def prediction(self, levels: Levels) -> tuple[Floats, Floats]:
        """(p, q) with x0 = p x + q output; inf where the prediction says nothing about x0 (alpha 0)."""
        alpha, sigma = levels.alpha, levels.sigma
        with np.errstate(divide="ignore", invalid="ignore"):
            match self.spec.prediction:
                case "epsilon":
                    return 1.0 / alpha, -sigma / alpha
                case "sample":
                    return np.zeros_like(alpha), np.ones_like(alpha)
                case "v":
                    power = alpha**2 + sigma**2
                    return alpha / power, -sigma / power
                case "score":
                    return 1.0 / alpha, sigma**2 / alpha
                case "flow" | "flow_reversed":
                    sign = 1.0 if self.spec.prediction == "flow" else -1.0
                    total = alpha + sigma
                    return 1.0 / total, -sign * sigma / total
        return self._edm(levels)

    def _edm(self, levels: Levels) -> tuple[Floats, Floats]:
        """c_skip and c_out of Karras et al. 2022, table 1, for x / alpha."""
        data = self.sigma_data
        power = levels.ratio**2 + data**2
        sign = -1.0 if self.spec.prediction == "edm_negated" else 1.0
        return data**2 / power / levels.alpha, sign * levels.ratio * data / np.sqrt(power)

    @property
    def sigma_data(self) -> float:
        """Standard deviation of the data as the EDM preconditioning takes it (0.5 where not given)."""
        return self.spec.sigma_data if self.spec.sigma_data is not None else 0.5

    def input_scale(self, levels: Levels) -> Floats:
        """Factor between the state and the network's input."""
        if self.spec.input_scale == "none":
            return np.ones_like(levels.alpha)
        data = 1.0 if self.spec.input_scale == "inverse_rms" else self.sigma_data
        return np.asarray(1.0 / np.sqrt((data * levels.alpha) ** 2 + levels.sigma**2), np.float64)


def _tables(schedule: VpSchedule | VeSchedule | FlowSchedule) -> tuple[Floats, Floats]:
    """(alpha, sigma) [T] of every training step."""
    if isinstance(schedule, VpSchedule):
        kept = np.cumprod(1.0 - np.asarray(schedule.betas, np.float64))
        return np.sqrt(kept), np.sqrt(1.0 - kept)
    if isinstance(schedule, VeSchedule):
        sigmas = np.asarray(schedule.sigmas, np.float64)
        return np.ones_like(sigmas), sigmas
    s = np.arange(schedule.training_steps, dtype=np.float64) / schedule.training_steps
    return 1.0 - s, s
