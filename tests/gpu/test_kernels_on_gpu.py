"""Operators on CUDA: numerics against the CPU references, invariance, graphs, no waiting, and speed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kernels.denoise import Operands, denoise_step
from kernels.logprobs import gather_logprobs
from kernels.philox import philox_normal, philox_uniform, philox_words
from kernels.token_sampling import sample_tokens
from tests.benchmarks.gpu.timing import Clock, copy_microseconds
from tests.kernels import cases, row_cases
from tests.kernels.cases import Case, Maker

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")]

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
KINDS = ("words", "uniform", "normal")
VOCABULARIES = (1, 2, 7, 255, 1000, 8192, 9001, 50_257)
CASES: list[Case] = [
    *(cases.denoise_case(5, (3, 32, 32), dtype, "drawn", Maker(1)) for dtype in FLOATS),
    cases.denoise_case(3, (3, 11, 13), torch.float32, "drawn", Maker(2)),
    cases.denoise_case(3, (3, 64, 64), torch.float32, "given", Maker(3, strided=True)),
    cases.denoise_case(0, (4,), torch.float32, "drawn", Maker(5)),
    *(row_cases.rows_case(sizes, Maker(23)) for sizes in row_cases.SIZES),
    *(cases.philox_case(3, 2, n, kind, Maker(6)) for kind in KINDS for n in (1, 77, 9001)),
    *(cases.philox_case(3, 1, 5, kind, Maker(6)) for kind in KINDS),
    *(cases.sampling_case(40, size, torch.float32, Maker(size)) for size in VOCABULARIES),
    *(cases.sampling_case(8, 1000, dtype, Maker(7)) for dtype in FLOATS[1:]),
    *(cases.logprob_case(33, size, 3, dtype, Maker(8)) for size in (1, 1000, 50_257) for dtype in FLOATS),
    *(cases.linear_case(rows, 1000, 96, dtype, Maker(9)) for rows in (1, 70) for dtype in FLOATS),
    *(
        cases.attention_case(5, heads, length, 64, dtype, Maker(10))
        for heads in ((8, 2), (4, 4), (5, 1))
        for length in (1, 18, 523, 1328)
        for dtype in FLOATS
    ),
    cases.attention_case(2, (8, 2), 463, 128, torch.bfloat16, Maker(11)),
    cases.attention_case(2, (8, 2), 463, 256, torch.bfloat16, Maker(11)),
    cases.image_case((4, 3, 65, 31), torch.float32, Maker(12)),
    cases.image_case((4, 3, 65, 31), torch.bfloat16, Maker(12)),
    *cases.likelihood_cases(4, 3, 1100, Maker(13)),
    *cases.likelihood_cases(1, 1, 1, Maker(14)),
]  # fmt: skip


def on_gpu(operands: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.cuda() if isinstance(value, torch.Tensor) else value for value in operands)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kernel_equals_its_reference_on_cpu(case: Case) -> None:
    torch.use_deterministic_algorithms(True)  # uninitialised outputs hold NaN
    try:
        actual = cases.results(case.launch(*on_gpu(case.operands)))
    finally:
        torch.use_deterministic_algorithms(False)
    for one, other in zip(actual, cases.results(case.reference(*case.operands)), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        exact = case.exact or not other.is_floating_point()
        rtol, atol = (0.0, 0.0) if exact else (1e-4, 2 * case.tolerance)
        torch.testing.assert_close(one.cpu(), other, rtol=rtol, atol=atol, equal_nan=True)


@pytest.mark.parametrize("case", [case for case in CASES if case.rows > 1], ids=lambda case: case.name)
def test_row_alone_equals_the_row_in_its_batch_bit_for_bit(case: Case) -> None:
    index = torch.tensor([case.rows - 1])
    batch = cases.results(case.launch(*on_gpu(case.operands)))
    alone = cases.results(case.launch(*on_gpu(case.of_rows(index))))
    for whole, one in zip(batch, alone, strict=True):
        torch.testing.assert_close(one, whole[index.cuda()], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("draw", [philox_words, philox_uniform, philox_normal])
def test_a_million_draws_equal_the_cpu_bit_for_bit(draw: Any) -> None:
    rows = torch.arange(64)
    there = draw(rows.cuda(), rows.cuda(), rows.cuda(), 1, 16_384)
    assert torch.equal(there.cpu(), draw(rows, rows, rows, 1, 16_384))


def test_offsets_beyond_32_bits_are_addressed() -> None:
    rows, size = 33, 2**26 + 16
    logits = torch.zeros(rows, size, dtype=torch.bfloat16, device="cuda")
    logits[-1, -1] = 40.0
    ids = torch.full((rows, 1), size - 1, device="cuda")
    result = gather_logprobs(logits, ids)
    assert float(result[-1]) == pytest.approx(0.0, abs=1e-3)
    assert float(result[0]) == pytest.approx(-18.0218, abs=1e-2)


def test_a_tick_of_both_loops_runs_in_a_graph_and_never_waits() -> None:
    given = Operands(*on_gpu(cases.denoise_case(4, (3, 32, 32), torch.float32, "drawn", Maker(20)).operands))
    sampling = on_gpu(cases.sampling_case(4, 1000, torch.float32, Maker(21)).operands)

    def tick() -> tuple[torch.Tensor, torch.Tensor]:
        return denoise_step(**given._asdict())[0], sample_tokens(*sampling)[0]

    expected = tick()
    torch.cuda.set_sync_debug_mode("error")
    try:
        tick()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        state, token = tick()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(state, expected[0])
    assert torch.equal(token, expected[1])


@pytest.mark.parametrize("rows", [32])
def test_denoise_step_moves_its_bytes_at_most_a_third_slower_than_a_copy(rows: int) -> None:
    case = cases.denoise_case(rows, (3, 256, 256), torch.float32, "none", Maker(22), history=0)
    given = Operands(*on_gpu(case.operands))._replace(unconditional_row=None, known=None, observed=None)
    given = given._replace(
        model_output=given.model_output[:rows].contiguous(), seed=torch.arange(rows).cuda()
    )
    given = given._replace(row=given.seed, line=given.seed)
    clock = Clock(torch.device("cuda"))
    ours = clock.microseconds(lambda: denoise_step(**given._asdict()))
    assert ours <= 1.35 * copy_microseconds(clock, 16 * given.x.numel())


def test_gather_logprobs_reads_its_bytes_at_most_half_slower_than_a_copy() -> None:
    logits = torch.randn(1024, 50_257, device="cuda", dtype=torch.bfloat16)
    ids = torch.zeros(1024, 1, dtype=torch.int64, device="cuda")
    clock = Clock(torch.device("cuda"))
    ours = clock.microseconds(lambda: gather_logprobs(logits, ids))
    assert ours <= 1.5 * copy_microseconds(clock, 2 * logits.numel())
