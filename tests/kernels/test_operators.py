"""The operators as torch sees them: registered, traceable without data, scriptable, triton-free on CPU."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.kernels import cases
from tests.kernels.cases import Case, Maker

NAMES = {
    "categorical_log_prob", "decode_attention", "denoise_step", "gather_logprobs", "gaussian_log_weight",
    "image_to_uint8", "linear_logprob", "log_mean_exp", "philox_normal", "philox_uniform", "philox_words",
    "row_log_prob", "sample_tokens",
}  # fmt: skip

CASES = {
    "denoise_step": cases.denoise_case(2, (3, 4), torch.float32, "drawn", Maker(1)),
    "sample_tokens": cases.sampling_case(2, 20, torch.float32, Maker(1)),
    "gather_logprobs": cases.logprob_case(2, 20, 3, torch.float32, Maker(1)),
    "linear_logprob": cases.linear_case(2, 20, 8, torch.float32, Maker(1)),
    "decode_attention": cases.attention_case(2, (4, 2), 9, 16, torch.float32, Maker(1)),
    "image_to_uint8": cases.image_case((2, 3, 4, 5), torch.float32, Maker(1)),
    "philox_normal": cases.philox_case(2, 3, 5, "normal", Maker(1)),
    "row_log_prob": cases.likelihood_cases(2, 3, 4, Maker(1))[0],
    "categorical_log_prob": cases.likelihood_cases(2, 3, 4, Maker(1))[4],
    "gaussian_log_weight": cases.likelihood_cases(2, 3, 4, Maker(1))[5],
    "log_mean_exp": cases.likelihood_cases(2, 3, 4, Maker(1))[6],
}


def test_every_operator_is_registered() -> None:
    assert {name for name in NAMES if hasattr(torch.ops.pxserve, name)} == NAMES


@pytest.mark.parametrize(("name", "case"), CASES.items(), ids=CASES)
def test_operator_runs_its_reference_on_cpu_and_knows_its_shapes_without_data(name: str, case: Case) -> None:
    operator = getattr(torch.ops.pxserve, name)
    expected = cases.results(case.reference(*case.operands))
    for one, other in zip(cases.results(operator(*case.operands)), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    with FakeTensorMode() as mode:
        fakes = (mode.from_tensor(v) if isinstance(v, torch.Tensor) else v for v in case.operands)
        for one, other in zip(cases.results(operator(*fakes)), expected, strict=True):
            assert (one.shape, one.dtype, one.stride()) == (other.shape, other.dtype, other.stride())


def attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, length: torch.Tensor
) -> torch.Tensor:
    result: torch.Tensor = torch.ops.pxserve.decode_attention(query, keys, values, length)
    return result


def test_attention_survives_scripting_and_saving() -> None:
    query, keys, values, lengths, _ = CASES["decode_attention"].operands
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(attend), buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)  # type: ignore[no-untyped-call]
    assert torch.equal(loaded(query, keys, values, lengths), attend(query, keys, values, lengths))


def test_cpu_never_imports_triton() -> None:
    code = (
        "import sys, torch, kernels.denoise as d, kernels.token_sampling, kernels.likelihood\n"
        "d.denoise_step(torch.zeros(1, 4), torch.zeros(1, 4), torch.tensor([d.Coefficients()]))\n"
        "assert 'triton' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
