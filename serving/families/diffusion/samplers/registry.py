"""Every sampler by name: its lines, where it is at home, and what it may be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from serving.families.diffusion.grid import Spacing
from serving.families.diffusion.plan import Lines
from serving.families.diffusion.process import Levels
from serving.families.diffusion.samplers.ancestral import ancestral, learned_range
from serving.families.diffusion.samplers.churn import edm_stochastic
from serving.families.diffusion.samplers.first_order import ddim, euler, euler_ancestral
from serving.families.diffusion.samplers.heun import heun
from serving.families.diffusion.samplers.multistep import dpmpp_2m
from serving.families.diffusion.samplers.predictor_corrector import predictor_corrector
from serving.families.diffusion.samplers.unified import unipc

ALL = ("vp", "ve", "flow")


@dataclass(frozen=True)
class Sampler:
    """``lines(levels, eta)``; ``schedules``: where it is defined; ``runs_per_step`` bounds its runs."""

    name: str
    lines: Callable[[Levels, float], Lines]
    reference: str
    default_steps: int
    spacing: Spacing = "trailing"
    schedules: tuple[str, ...] = ALL
    takes_eta: bool = False
    runs_per_step: int = 1
    learned: Callable[[Levels], Lines] | None = None  # its lines where the network learned the variance

    def lines_of(self, levels: Levels, eta: float, learns: bool) -> Lines:
        """Its lines under a package whose network learned the variance, or did not."""
        return self.learned(levels) if learns and self.learned is not None else self.lines(levels, eta)


def _plain(lines: Callable[[Levels], Lines]) -> Callable[[Levels, float], Lines]:
    return lambda levels, _: lines(levels)


_ANCESTRAL = _plain(ancestral)
_LARGE = _plain(partial(ancestral, large=True))
_SDE_2M = _plain(partial(dpmpp_2m, stochastic=True))
_KARRAS = "Karras et al. 2022, algorithm 1"
_LU = "Lu et al. 2022, DPM-Solver++(2M)"
_SONG = "Song et al. 2021"

_REGISTRY = (
    Sampler("ddpm", _ANCESTRAL, "Ho et al. 2020", 100, schedules=("vp",), learned=learned_range),
    Sampler("ddpm_large", _LARGE, "Ho et al. 2020, variance beta", 100, schedules=("vp",)),
    Sampler("ddim", ddim, "Song, Meng and Ermon 2021", 50, takes_eta=True),
    Sampler("euler", _plain(euler), _KARRAS, 50),
    Sampler("euler_ancestral", _plain(euler_ancestral), "k-diffusion, sample_euler_ancestral", 50),
    Sampler("heun", _plain(heun), _KARRAS, 20, "karras", runs_per_step=2),
    Sampler("dpmpp_2m", _plain(dpmpp_2m), _LU, 20, "karras"),
    Sampler("sde_dpmpp_2m", _SDE_2M, _LU + ", eq. 19", 25, "karras"),
    Sampler("unipc", _plain(unipc), "Zhao et al. 2023, UniPC of order 2", 20, "karras"),
    Sampler(
        "edm_stochastic",
        _plain(edm_stochastic),
        "Karras et al. 2022, algorithm 2, S_churn 40, S_noise 1.003",
        100,
        "churned",
        schedules=("vp", "ve"),
        runs_per_step=2,
    ),
    Sampler("reverse_diffusion", _LARGE, _SONG + ", algorithm 2", 200, schedules=("ve",)),
    Sampler("ancestral", _ANCESTRAL, _SONG + ", eq. 47", 200, schedules=("ve",), learned=learned_range),
    Sampler(
        "predictor_corrector",
        _plain(predictor_corrector),
        _SONG + ", algorithm 4",
        100,
        runs_per_step=2,
    ),
)
SAMPLERS = {sampler.name: sampler for sampler in _REGISTRY}
