"""Every sampler by name: its lines, where it is at home, and what it may be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from export.package.grid import Solver
from export.package.schema import Diffusion
from serving.families.diffusion.grid import Spacing
from serving.families.diffusion.plan import Lines
from serving.families.diffusion.process import Levels
from serving.families.diffusion.samplers.ancestral import ancestral, learned_range
from serving.families.diffusion.samplers.churn import edm_stochastic
from serving.families.diffusion.samplers.first_order import ddim, ddim_pairs, euler, euler_ancestral
from serving.families.diffusion.samplers.heun import heun
from serving.families.diffusion.samplers.multistep import DEFAULT, dpmpp, dpmpp_2s
from serving.families.diffusion.samplers.predictor_corrector import predictor_corrector
from serving.families.diffusion.samplers.unified import unipc
from serving.families.diffusion.visits import Counting, Visits

ALL = ("vp", "ve", "flow")


@dataclass(frozen=True)
class Sampler:
    """``lines(levels, eta)``; ``schedules``: where it is defined; ``runs_per_step`` bounds its runs.

    ``counting``: how it reads a package's grid; ``solved``: its lines under a package's choices of a solver.
    """

    name: str
    lines: Callable[[Levels, float], Lines]
    reference: str
    default_steps: int
    spacing: Spacing = "trailing"
    counting: Counting = "noise"
    schedules: tuple[str, ...] = ALL
    takes_eta: bool = False
    predicted_noise: bool = False  # goes on with it where the package says so and x0 is clipped
    runs_per_step: int = 1
    listed: bool = True  # on every package; else only where a package names it
    learned: Callable[[Levels], Lines] | None = None  # its lines where the network learned the variance
    solved: Callable[[Levels, Solver], Lines] | None = None

    def lines_of(self, visits: Visits, eta: float, section: Diffusion) -> Lines:
        """Its lines on one package."""
        if section.variance == "learned_range" and self.learned is not None:
            return self.learned(visits.levels)
        if self.counting == "strided":
            return ddim_pairs(visits.levels[:-1], visits.after, eta)
        if self.solved is not None and section.solver is not None:
            return self.solved(visits.levels, section.solver)
        return self.lines(visits.levels, eta)


def _plain(lines: Callable[[Levels], Lines]) -> Callable[[Levels, float], Lines]:
    return lambda levels, _: lines(levels)


_ANCESTRAL = _plain(ancestral)
_LARGE = _plain(partial(ancestral, large=True))


def _dpmpp(order: int, stochastic: bool = False) -> dict[str, Any]:
    """Fields of a multistep sampler of this order."""

    def solved(levels: Levels, solver: Solver = DEFAULT) -> Lines:
        return dpmpp(levels, order, stochastic, solver)

    return {"lines": _plain(solved), "solved": solved, "spacing": "karras", "counting": "multistep"}


def _unipc(levels: Levels, solver: Solver = DEFAULT, order: int = 2) -> Lines:
    return unipc(levels, order, solver)


_KARRAS = "Karras et al. 2022, algorithm 1"
_LU = "Lu et al. 2022, DPM-Solver++"
_SONG = "Song et al. 2021"

_REGISTRY = (
    Sampler(
        "ddpm", _ANCESTRAL, "Ho et al. 2020", 100, counting="steps", schedules=("vp",), learned=learned_range
    ),
    Sampler("ddpm_large", _LARGE, "Ho et al. 2020, variance beta", 100, counting="steps", schedules=("vp",)),
    Sampler(
        "ddim",
        ddim,
        "Song, Meng and Ermon 2021",
        50,
        counting="strided",
        takes_eta=True,
        predicted_noise=True,
    ),
    Sampler("euler", _plain(euler), _KARRAS, 50),
    Sampler("euler_ancestral", _plain(euler_ancestral), "k-diffusion, sample_euler_ancestral", 50),
    Sampler("heun", _plain(heun), _KARRAS, 20, "karras", runs_per_step=2),
    Sampler("dpmpp_1m", reference=_LU + ", of order 1", default_steps=20, listed=False, **_dpmpp(1)),
    Sampler("dpmpp_2m", reference=_LU + "(2M)", default_steps=20, **_dpmpp(2)),
    Sampler("dpmpp_3m", reference=_LU + ", of order 3", default_steps=20, **_dpmpp(3)),
    Sampler(
        "dpmpp_2s",
        _plain(dpmpp_2s),
        _LU + ", singlestep",
        20,
        "karras",
        "multistep",
        listed=False,
        solved=dpmpp_2s,
    ),
    Sampler("sde_dpmpp_2m", reference=_LU + "(2M), eq. 19", default_steps=25, **_dpmpp(2, stochastic=True)),
    Sampler(
        "unipc",
        _plain(_unipc),
        "Zhao et al. 2023, UniPC of order 2",
        20,
        "karras",
        "unified",
        solved=_unipc,
    ),
    Sampler(
        "unipc_3",
        _plain(partial(_unipc, order=3)),
        "Zhao et al. 2023, UniPC of order 3",
        20,
        "karras",
        "unified",
        listed=False,
        solved=partial(_unipc, order=3),
    ),
    Sampler(
        "edm_stochastic",
        _plain(edm_stochastic),
        "Karras et al. 2022, algorithm 2, S_churn 40, S_noise 1.003",
        100,
        "churned",
        schedules=("vp", "ve"),
        runs_per_step=2,
    ),
    Sampler("reverse_diffusion", _LARGE, _SONG + ", algorithm 2", 200, counting="steps", schedules=("ve",)),
    Sampler(
        "ancestral",
        _ANCESTRAL,
        _SONG + ", eq. 47",
        200,
        counting="steps",
        schedules=("ve",),
        learned=learned_range,
    ),
    Sampler(
        "predictor_corrector",
        _plain(predictor_corrector),
        _SONG + ", algorithm 4",
        100,
        counting="steps",
        runs_per_step=2,
    ),
)
SAMPLERS = {sampler.name: sampler for sampler in _REGISTRY}
