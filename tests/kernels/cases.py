"""Inputs for every operator, made from a seed: the interpreter tier and the GPU tier run the same cases."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from kernels import (
    _likelihood_kernels,
    _token_reference,
    attention,
    denoise,
    image,
    likelihood,
    linear_logprob,
    logprobs,
    philox,
    token_sampling,
)

Operands = tuple[Any, ...]
HALF = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@dataclass(frozen=True)
class Case:
    """One operator on one set of operands; ``exact``: launcher and reference agree bit for bit."""

    name: str
    launch: Callable[..., Any]
    reference: Callable[..., Any]
    operands: Operands
    rows: int
    exact: bool = False
    tolerance: float = 0.0
    take: Callable[[Operands, torch.Tensor], Operands] | None = None

    def of_rows(self, index: torch.Tensor) -> Operands:
        """The operands of some rows only."""
        if self.take is not None:
            return self.take(self.operands, index)
        return tuple(
            value[index] if isinstance(value, torch.Tensor) and len(value) == self.rows else value
            for value in self.operands
        )


def results(outcome: Any) -> tuple[torch.Tensor, ...]:
    """Outputs as a tuple, also of operators with one."""
    return outcome if isinstance(outcome, tuple) else (outcome,)


class Maker:
    """Random operands of one seed; ``strided`` makes every float operand non-contiguous in its rows."""

    def __init__(self, seed: int = 0, strided: bool = False) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.strided = strided

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        values = torch.randn(*shape, generator=self.generator).to(dtype)
        if self.strided and len(shape) > 1:
            return torch.stack((values, values * math.nan), dim=-1)[..., 0]
        return values

    def counter(self, *shape: int) -> torch.Tensor:
        return torch.randint(-(2**62), 2**62, shape, generator=self.generator)

    def below(self, bound: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, bound, shape, generator=self.generator)


def table(make: Maker, rows: int) -> torch.Tensor:
    """Coefficients of every kind of row: clipped or not, with or without noise, history, inpainting."""
    coefficients = torch.randn(rows, denoise.COLUMNS, generator=make.generator)
    coefficients[:, 3], coefficients[:, 4] = -1.0, 1.0
    coefficients[0::3, 3:5] = torch.tensor([-math.inf, math.inf])
    coefficients[1::2, 7:10] = 0.0
    coefficients[1::3, 10] = 0.0
    coefficients[2::3, 11:13] = 0.0
    coefficients[0::2, 13] = 0.0
    return coefficients


def denoise_case(
    rows: int, shape: tuple[int, ...], dtype: torch.dtype, noise: str, make: Maker, history: int = 2
) -> Case:
    given: dict[str, Any] = (
        {"noise": make.normal(rows, *shape), "renoise": make.normal(rows, *shape)} if noise == "given" else {}
    )
    drawn: dict[str, Any] = (
        {name: make.counter(rows) for name in ("seed", "row", "line", "particle")} if noise == "drawn" else {}
    )
    operands = denoise.Operands(
        x=make.normal(rows, *shape),
        model_output=make.normal(2 * rows, *shape, dtype=dtype),
        coefficients=table(make, rows),
        unconditional_row=rows + torch.randperm(rows, generator=make.generator),
        history=make.normal(rows, history, *shape) if history else None,
        known=make.normal(rows, *shape),
        observed=make.below(2, rows, *shape).bool(),
        **given,
        **drawn,
    )
    name = f"denoise {rows}x{shape} {dtype} noise {noise}"
    return Case(name, denoise.launch, denoise.reference, operands, rows, exact=True, take=_denoise_rows)


def _denoise_rows(operands: Operands, index: torch.Tensor) -> Operands:
    given = denoise.Operands(*operands)
    assert given.unconditional_row is not None
    both = torch.cat((index, given.unconditional_row[index]))
    rows: dict[str, Any] = {
        name: value[index]
        for name, value in given._asdict().items()
        if isinstance(value, torch.Tensor) and name not in ("model_output", "unconditional_row")
    }
    again = torch.arange(len(index), device=index.device) + len(index)
    return denoise.Operands(**rows, model_output=given.model_output[both], unconditional_row=again)


def sampling_case(rows: int, size: int, dtype: torch.dtype, make: Maker) -> Case:
    logits = make.normal(rows, size, dtype=dtype) * 3
    if size < 300:
        logits = (logits * 2).round() / 2  # ties
    choose = {
        "temperature": torch.tensor([1.0, 0.0, 0.5, 1.3]),
        "top_k": torch.tensor([0, 3, 0, 50, 1, 7, 0, 300]),
        "top_p": torch.tensor([1.0, 0.9, 0.5, 1.0, 0.01]),
        "min_p": torch.tensor([0.0, 0.0, 0.05]),
    }
    settings = (values[torch.arange(rows) % len(values)] for values in choose.values())
    counters = (make.counter(rows) for _ in range(4))
    operands = (logits, *settings, *counters)
    name = f"sample_tokens {rows}x{size} {dtype}"
    return Case(name, token_sampling.launch, _token_reference.reference, operands, rows, tolerance=1e-5)


def logprob_case(rows: int, size: int, count: int, dtype: torch.dtype, make: Maker) -> Case:
    wide = make.normal(rows, size + 3, dtype=dtype) * 4  # rows that start anywhere
    logits = wide[:, 1 : size + 1]
    if size > 2:
        logits[:, 0] = -math.inf
    ids = make.below(size, rows, count)
    name = f"gather_logprobs {rows}x{size} {dtype}"
    return Case(name, logprobs.launch, logprobs.reference, (logits, ids), rows, tolerance=1e-5)


def linear_case(rows: int, size: int, width: int, dtype: torch.dtype, make: Maker) -> Case:
    operands = (
        make.normal(rows, width, dtype=dtype),
        make.normal(size, width, dtype=dtype),
        make.below(size, rows),
        make.normal(size).to(dtype),
    )

    def take(given: Operands, index: torch.Tensor) -> Operands:
        return given[0][index], given[1], given[2][index], given[3]

    name = f"linear_logprob {rows}x{size}x{width} {dtype}"
    return Case(
        name, linear_logprob.launch, linear_logprob.reference, operands, rows, tolerance=2e-5, take=take
    )


def attention_case(
    rows: int, heads: tuple[int, int], length: int, width: int, dtype: torch.dtype, make: Maker
) -> Case:
    slots = rows + 2
    lengths = make.below(length + 1, rows)
    lengths[0] = length
    lengths[1:2] = 0
    operands = (
        make.normal(rows, heads[0], width, dtype=dtype),
        torch.randn(slots, heads[1], length, width, generator=make.generator).to(dtype),
        torch.randn(slots, heads[1], length, width, generator=make.generator).to(dtype),
        lengths,
        torch.randperm(slots, generator=make.generator)[:rows],
    )

    def take(given: Operands, index: torch.Tensor) -> Operands:
        return given[0][index], given[1], given[2], given[3][index], given[4][index]

    name = f"decode_attention {rows}x{heads} length {length} width {width} {dtype}"
    tolerance = HALF.get(dtype, 1e-6)
    return Case(name, attention.launch, attention.reference, operands, rows, tolerance=tolerance, take=take)


def image_case(shape: tuple[int, ...], dtype: torch.dtype, make: Maker) -> Case:
    x = make.normal(*shape, dtype=dtype) * 1.2
    return Case(f"image {shape} {dtype}", image.launch, image.reference, (x,), shape[0], exact=True)


def philox_case(rows: int, steps: int, n: int, kind: str, make: Maker) -> Case:
    operands = (make.counter(rows), make.counter(rows), make.counter(rows, steps), make.counter(rows), n)
    reference = getattr(philox, f"philox_{kind}")
    return Case(
        f"philox {kind} {rows}x{steps}x{n}", philox.launcher(kind), reference, operands, rows, exact=True
    )


def likelihood_cases(rows: int, particles: int, n: int, make: Maker) -> list[Case]:
    lanes = rows * particles
    levels = make.below(256, rows, n)
    levels[:, 0] = 0
    x = levels / 127.5 - 1.0
    mean, spread = make.normal(lanes, n) * 0.6, make.normal(lanes, n) - 2.0
    each = (1 / 255, -1.0, 1.0)
    cases = [
        Case(
            f"row_log_prob {kind}",
            _likelihood_kernels.launch_row_log_prob, likelihood.row_log_prob_reference,
            ((x > 0).float() if kind == "bernoulli" else x, mean, spread, kind, *each),
            lanes, tolerance=1e-9 * n, take=_particle_rows(particles),
        )
        for kind in _likelihood_kernels.KINDS
    ]  # fmt: skip
    weights = make.normal(rows, 3 * n).double() * 3
    return [
        *cases,
        Case(
            "categorical_log_prob", _likelihood_kernels.launch_categorical, likelihood.categorical_reference,
            (make.normal(lanes, 9, n), make.below(9, rows, n)), lanes, tolerance=1e-6 * n,
            take=_particle_rows(particles),
        ),
        Case(
            "gaussian_log_weight", _likelihood_kernels.launch_log_weight, likelihood.log_weight_reference,
            (make.normal(rows, particles, n), make.normal(rows, n), make.normal(rows, n),
             make.normal(rows, particles).double()), rows, tolerance=1e-9 * n,
        ),
        Case(
            "log_mean_exp", _likelihood_kernels.launch_log_mean_exp, likelihood.log_mean_exp_reference,
            (weights,), rows, tolerance=1e-9,
        ),
    ]  # fmt: skip


def _particle_rows(particles: int) -> Callable[[Operands, torch.Tensor], Operands]:
    """Rows are particles; their data row is shared, so that a row taken alone brings its own copy."""

    def take(given: Operands, index: torch.Tensor) -> Operands:
        own = index // particles
        data = 0 if given[0].dim() == 2 and len(given[0]) * particles == len(given[1]) else 1
        return tuple(
            (value[own] if position == data else value[index]) if isinstance(value, torch.Tensor) else value
            for position, value in enumerate(given)
        )

    return take
