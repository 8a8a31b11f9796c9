"""Each kernel against eager torch, torch.compile, a copy of the same bytes, and its floor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from kernels.attention import decode_attention
from kernels.denoise import Coefficients, Operands, denoise_step
from kernels.image import image_to_uint8
from kernels.likelihood import row_log_prob
from kernels.linear_logprob import linear_logprob
from kernels.logprobs import gather_logprobs
from kernels.philox import philox_normal
from kernels.token_sampling import sample_tokens
from tests.benchmarks.gpu import eager
from tests.benchmarks.gpu.timing import Ceilings, Clock, copy_microseconds


@dataclass(frozen=True)
class Comparison:
    """Two ways to compute one thing; ``operations`` where arithmetic, not ``moved_bytes``, sets the floor."""

    name: str
    ours: Callable[[], object]
    eager: Callable[..., object]
    operands: tuple[Any, ...]
    moved_bytes: int
    operations: int = 0
    target: str = ""


@dataclass(frozen=True)
class KernelResult:
    """Microseconds; ``of_copy`` is the copy's time over ours."""

    name: str
    ours_us: float
    eager_us: float
    compiled_us: float | None
    copy_us: float
    floor_us: float
    of_copy: float
    target: str
    note: str = ""


class Data:
    """Operands on the device from one seed, shrunk where the device is a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.small = device.type != "cuda"
        self.generator = torch.Generator(device).manual_seed(0)

    def size(self, full: int, small: int) -> int:
        """``full`` on a GPU."""
        return small if self.small else full

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(*shape, device=self.device, generator=self.generator).to(dtype)

    def ids(self, bound: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, bound, shape, device=self.device, generator=self.generator)

    def index(self, rows: int) -> torch.Tensor:
        return torch.arange(rows, device=self.device)


def _denoise(data: Data, name: str, rows: int, pixels: int, everything: bool) -> Comparison:
    shape = (rows, 3, pixels, pixels)
    line = Coefficients(p=1.2, q=-0.7, lo=-1.0, hi=1.0, a=0.6, b=0.4, d=0.1)
    if everything:
        line = line._replace(g=3.0, known=0.9, renoise=0.4)
    index = data.index(rows)
    given = Operands(
        data.normal(*shape),
        data.normal(2 * rows if everything else rows, *shape[1:]),
        torch.tensor([line], device=data.device).repeat(rows, 1),
        unconditional_row=rows + index if everything else None,
        known=data.normal(*shape) if everything else None,
        observed=data.normal(*shape) > 0 if everything else None,
        seed=index, row=index, line=index,
    )  # fmt: skip
    moved = given.x.numel() * (25 if everything else 16)
    target = ">= 85 % of copy" if (rows, pixels) == (32, 256) and not everything else ""
    return Comparison(
        name, lambda: denoise_step(**given._asdict()), eager.denoise_step, (given,), moved, 0, target
    )


def _sampling(data: Data, name: str, rows: int, size: int) -> Comparison:
    logits, index = data.normal(rows, size) * 3, data.index(rows)
    heat, mass = torch.ones(rows, device=data.device), torch.full((rows,), 0.9, device=data.device)
    count, none = torch.full_like(index, min(50, size)), torch.zeros(rows, device=data.device)
    operands = (logits, heat, count, mass)
    target = ">= 3 x eager" if (rows, size) == (128, 8192) else ""
    return Comparison(
        name,
        lambda: sample_tokens(*operands, none, index, index, index),
        eager.sample_tokens,
        operands,
        logits.numel() * 4,
        target=target,
    )


def _scoring(data: Data) -> Iterator[Comparison]:
    rows, size, width = data.size(1024, 4), data.size(50_257, 500), data.size(768, 32)
    logits, ids = data.normal(rows, size, dtype=torch.bfloat16), data.ids(size, rows, 1)
    yield Comparison(
        f"gather_logprobs {rows} x {size} bfloat16", lambda: gather_logprobs(logits, ids),
        eager.gather_logprobs, (logits, ids), logits.numel() * 2, target=">= 80 % of copy",
    )  # fmt: skip
    hidden, weight = (
        data.normal(rows, width, dtype=torch.bfloat16),
        data.normal(size, width, dtype=torch.bfloat16),
    )
    target = ids[:, 0]
    yield Comparison(
        f"linear_logprob {rows} x {size} x {width} bfloat16", lambda: linear_logprob(hidden, weight, target),
        eager.linear_logprob, (hidden, weight, target), weight.numel() * 2, 2 * rows * size * width,
    )  # fmt: skip


def _attention(data: Data) -> Comparison:
    rows, length = data.size(64, 2), data.size(2048, 64)
    query = data.normal(rows, 32, 128, dtype=torch.bfloat16)
    keys, values = (data.normal(rows, 8, length, 128, dtype=torch.bfloat16) for _ in range(2))
    lengths = torch.full((rows,), length, device=data.device)
    operands = (query, keys, values, lengths)
    return Comparison(
        f"decode_attention {rows} rows, length {length}, 32 heads over 8 x 128 bfloat16",
        lambda: decode_attention(*operands), eager.attention, operands, 2 * keys.numel() * 2,
    )  # fmt: skip


def _likelihood(data: Data) -> Comparison:
    rows, n = data.size(2048, 4), 3072
    x = data.ids(256, rows, n) / 127.5 - 1
    operands = (x, data.normal(rows, n) * 0.3, data.normal(rows, n) - 3)
    return Comparison(
        f"row_log_prob discretized_logistic {rows} x {n}",
        lambda: row_log_prob(*operands, "discretized_logistic", 1 / 255, -1.0, 1.0),
        eager.discretized_logistic, operands, 3 * x.numel() * 4,
    )  # fmt: skip


def _images(data: Data) -> Iterator[Comparison]:
    rows, pixels = data.size(32, 2), data.size(256, 16)
    x, index = data.normal(rows, 3, pixels, pixels), data.index(rows)
    n = x[0].numel()
    yield Comparison(f"image_to_uint8 {rows} x 3 x {pixels} x {pixels}", lambda: image_to_uint8(x),
                     eager.image_to_uint8, (x,), 5 * x.numel())  # fmt: skip
    yield Comparison(f"philox_normal {rows} x {n}", lambda: philox_normal(index, index, index, 1, n),
                     lambda: torch.randn(rows, n, device=data.device), (), 4 * x.numel())  # fmt: skip


def comparisons(data: Data) -> Iterator[Comparison]:
    """All of them, made one at a time so that only one's operands are alive."""
    large, small = data.size(256, 16), data.size(32, 8)
    yield _denoise(data, f"denoise_step DDPM 32 x 3 x {large} x {large}", data.size(32, 2), large, False)
    yield _denoise(data, f"denoise_step guided, inpainting 32 x 3 x {large}^2", data.size(32, 2), large, True)
    yield _denoise(data, f"denoise_step DDPM 64 x 3 x {small} x {small}", data.size(64, 2), small, False)
    yield _sampling(data, "sample_tokens 128 x 8,192", data.size(128, 2), data.size(8192, 300))
    yield _sampling(data, "sample_tokens 16 x 50,257", data.size(16, 2), data.size(50_257, 900))
    yield _sampling(data, "sample_tokens 64 x 1,024", data.size(64, 2), data.size(1024, 100))
    yield from _scoring(data)
    yield _attention(data)
    yield _likelihood(data)
    yield from _images(data)


def measure(comparison: Comparison, clock: Clock, ceiling: Ceilings, compile_too: bool) -> KernelResult:
    """Time ours, eager, compiled and a copy."""
    call, operands = comparison.eager, comparison.operands
    ours = clock.microseconds(comparison.ours)
    plain = clock.microseconds(lambda: call(*operands))
    compiled, note = None, ""
    if compile_too:
        try:
            fused = torch.compile(call, dynamic=False)
            compiled = clock.microseconds(lambda: fused(*operands))
        except Exception as error:  # the compiler's own failures differ by version and toolchain
            note = f"torch.compile: {type(error).__name__}"
    copied = copy_microseconds(clock, comparison.moved_bytes)
    floor = 1e6 * max(
        comparison.moved_bytes / ceiling.copy_bytes_per_s, comparison.operations / ceiling.matmul_per_s
    )
    return KernelResult(
        comparison.name, ours, plain, compiled, copied, floor, copied / ours, comparison.target, note
    )
