"""Which noise levels sampling visits, as the scheduler that came with a model chooses them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from export.package.record import Record

Positive = Annotated[float, Field(gt=0.0)]


class Grid(Record):
    """The levels of ``steps`` steps. Absent: every sampler visits the levels that suit it best.

    spacing: of training steps (Lin et al. 2024, table 2); absent: leading for samplers over training steps,
    linspace for those over relative noise. ``offset`` is added to leading ones. ``skipped``: as many of the
    noisiest training steps are left out by multistep samplers. ``least_signal``: power of the data's share
    that samplers over relative noise keep at the last training step.
    spread: steps, or levels between the highest and the lowest relative noise (of the training steps, or
    ``highest`` and ``lowest``): karras (Karras et al. 2022, eq. 5, with ``rho``) or exponential.
    time: what the network of a multistep sampler is told at a level between two training steps: the place
    between them, the nearest, or the lower one.
    last_step, last_noise: where the last step arrives: the data, or the lowest level of training. The first
    is for samplers over training steps (DDIM), the second for those over relative noise.
    start: unit (the state begins as N(0, I)), level (with the standard deviation of the first level's noise)
    or rms (that of the first level for data of variance 1); of samplers over relative noise.
    shift, terminal: of flows: s becomes shift s / (1 + (shift - 1) s), stretched to end at ``terminal``.
    time_edge: of VE: the network is told the noise of times from 1 down to here instead of 0.
    """

    spacing: Literal["trailing", "leading", "linspace"] | None = None
    offset: Annotated[int, Field(ge=0)] = 0
    skipped: Annotated[int, Field(ge=0)] = 0
    least_signal: Positive | None = None
    spread: Literal["steps", "karras", "exponential"] = "steps"
    rho: Positive = 7.0
    lowest: Positive | None = None
    highest: Positive | None = None
    time: Literal["between", "nearest", "lower"] = "nearest"
    last_step: Literal["data", "lowest"] = "data"
    last_noise: Literal["data", "lowest"] = "data"
    start: Literal["unit", "level", "rms"] = "unit"
    shift: Positive = 1.0
    terminal: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    time_edge: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0


class Solver(Record):
    """How multistep samplers end, and which rule they step by.

    lower_order_final: fewer than 15 steps end with lower orders. euler_at_final: the last step is of first
    order. rule: midpoint or heun (Lu et al. 2022, of DPM-Solver++), bh1 or bh2 (Zhao et al. 2023, of UniPC).
    """

    lower_order_final: bool = True
    euler_at_final: bool = False
    rule: Literal["midpoint", "heun"] = "midpoint"
    unipc_rule: Literal["bh1", "bh2"] = "bh2"
