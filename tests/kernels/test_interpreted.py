"""Every Triton kernel in the interpreter against its reference, in a process with TRITON_INTERPRET=1."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from kernels import _token_reference, denoise, philox, rows, token_sampling
from tests.kernels import cases, row_cases
from tests.kernels.cases import Case, Maker

pytestmark = [
    pytest.mark.interpret,
    # The interpreter computes masked-out lanes too.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
STRIDED = Maker(9, strided=True)


@pytest.fixture(autouse=True)
def poisoned_outputs() -> Iterator[None]:
    """Uninitialised memory holds NaN (floats) or the largest integer."""
    assert os.environ.get("TRITON_INTERPRET") == "1", "run with TRITON_INTERPRET=1, in a process of its own"
    torch.use_deterministic_algorithms(True)
    assert torch.zeros(1).new_empty(9).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


CASES: list[Case] = [
    *(cases.denoise_case(3, (3, 11, 13), dtype, "drawn", Maker(1)) for dtype in FLOATS),
    cases.denoise_case(1, (5,), torch.float32, "drawn", Maker(2)),
    cases.denoise_case(2, (2100,), torch.float32, "given", Maker(3)),
    cases.denoise_case(2, (3, 8, 8), torch.float32, "none", Maker(4), history=0),
    cases.denoise_case(0, (4,), torch.float32, "drawn", Maker(5)),
    cases.denoise_case(3, (3, 7, 5), torch.float16, "given", STRIDED),
    *(row_cases.rows_case(sizes, Maker(23)) for sizes in row_cases.SIZES),
    *(
        cases.philox_case(2, 2, n, kind, Maker(6))
        for kind in ("words", "uniform", "normal")
        for n in (1, 77, 2049)
    ),
    cases.philox_case(1, 0, 5, "normal", Maker(6)),
    *(cases.sampling_case(6, size, torch.float32, Maker(size)) for size in (2, 7, 255, 1000)),
    *(cases.sampling_case(3, 300, dtype, Maker(7)) for dtype in FLOATS[1:]),
    cases.sampling_case(2, 8300, torch.float32, Maker(8)),
    cases.sampling_case(0, 10, torch.float32, Maker(8)),
    cases.sampling_case(3, 40, torch.float32, STRIDED),
    *(cases.logprob_case(3, 1000, 2, dtype, Maker(10)) for dtype in FLOATS),
    cases.logprob_case(1, 1, 1, torch.float32, Maker(11)),
    cases.logprob_case(2, 9001, 3, torch.float32, Maker(11)),
    cases.logprob_case(0, 9, 1, torch.float32, Maker(11)),
    cases.logprob_case(2, 50, 1, torch.float32, STRIDED),
    *(cases.linear_case(17, 131, 40, dtype, Maker(12)) for dtype in FLOATS),
    cases.linear_case(1, 5, 16, torch.float32, Maker(13)),
    cases.linear_case(3, 70, 24, torch.float32, STRIDED),
    *(cases.attention_case(3, (8, 2), 600, 64, dtype, Maker(14)) for dtype in FLOATS),
    cases.attention_case(1, (4, 4), 18, 16, torch.float32, Maker(15)),
    cases.attention_case(2, (5, 1), 300, 48, torch.float32, Maker(15)),
    cases.image_case((2, 3, 11, 13), torch.float32, Maker(16)),
    cases.image_case((2, 1, 9, 5), torch.float16, STRIDED),
    cases.image_case((0, 3, 4, 4), torch.float32, Maker(16)),
    *cases.likelihood_cases(2, 3, 77, Maker(17)),
    *cases.likelihood_cases(1, 1, 1, Maker(18))[:5],
    *cases.likelihood_cases(2, 1, 1100, Maker(19)),
]


def compare(case: Case, actual: torch.Tensor, expected: torch.Tensor) -> None:
    if case.exact or not expected.is_floating_point():
        torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)
    else:
        torch.testing.assert_close(
            actual.double(), expected.double(), rtol=1e-5, atol=case.tolerance, equal_nan=True
        )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kernel_equals_its_reference(case: Case) -> None:
    actual = cases.results(case.launch(*case.operands))
    expected = cases.results(case.reference(*case.operands))
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype == other.dtype
        compare(case, one, other)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.rows > 1], ids=lambda case: case.name
)  # fmt: skip
def test_row_alone_equals_the_row_in_its_batch_bit_for_bit(case: Case) -> None:
    index = torch.tensor([case.rows - 1])
    batch = cases.results(case.launch(*case.operands))
    alone = cases.results(case.launch(*case.of_rows(index)))
    for whole, one in zip(batch, alone, strict=True):
        torch.testing.assert_close(one, whole[index], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("block", [64, 256])
def test_block_size_changes_no_bit_of_noise_and_steps(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = cases.philox_case(2, 1, 1300, "normal", Maker(20))
    stepped = cases.denoise_case(2, (1300,), torch.float32, "drawn", Maker(21))
    rowed = row_cases.rows_case(row_cases.Sizes(3, 1300), Maker(24))
    before = [cases.results(case.launch(*case.operands)) for case in (drawn, stepped, rowed)]
    monkeypatch.setattr(philox, "configuration", lambda n: (block, 4))
    for module in (denoise, rows):
        monkeypatch.setattr(module, "configuration", lambda n: denoise.Configuration(block, 4))
    after = [cases.results(case.launch(*case.operands)) for case in (drawn, stepped, rowed)]
    for one, other in zip(before, after, strict=True):
        for left, right in zip(one, other, strict=True):
            assert torch.equal(left, right)


def test_tiled_and_resident_rows_choose_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    case = cases.sampling_case(4, 500, torch.float32, Maker(22))
    resident = case.launch(*case.operands)
    monkeypatch.setattr(
        token_sampling, "configuration", lambda size: token_sampling.Configuration(False, 64, 4)
    )
    tiled = case.launch(*case.operands)
    assert torch.equal(resident[0], tiled[0])
    torch.testing.assert_close(resident[1:], tiled[1:], rtol=1e-5, atol=1e-5)


def test_interpreter_is_on() -> None:
    cases.philox_case(1, 1, 1, "words", Maker()).launch(*(torch.zeros(1, dtype=torch.int64),) * 4, 1)
    assert type(philox._philox_kernel).__name__ == "InterpretedFunction"


def test_extreme_logits_stay_finite() -> None:
    logits = torch.full((3, 40), -1e30)
    logits[0, 7], logits[1, 9], logits[2] = 1e30, -torch.inf, 3.0
    logits[2, 1:] = -torch.inf
    rows = torch.arange(3)
    one, zero = torch.ones(3), torch.zeros(3, dtype=torch.int64)
    for launch in (token_sampling.launch, _token_reference.reference):
        token, raw, processed = launch(logits, one, zero, one, one * 0, rows, rows, rows, None)
        assert token[0] == 7
        assert token[1] != 9
        assert token[2] == 0
        assert torch.isfinite(raw).all()
        assert torch.isfinite(processed).all()


def test_a_row_of_nan_harms_neither_kernel_nor_neighbours() -> None:
    case = cases.sampling_case(4, 100, torch.float32, Maker(23))
    whole = case.launch(*case.operands)
    broken = (case.operands[0].clone(), *case.operands[1:])
    broken[0][2] = torch.nan
    token, raw, _ = case.launch(*broken)
    assert 0 <= int(token[2]) < 100
    assert raw[2].isnan()
    others = torch.tensor([0, 1, 3])
    assert torch.equal(token[others], whole[0][others])
