"""denoise_step on CPU against float64, and what a coefficient of zero promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from kernels.denoise import COLUMNS, Coefficients, Operands, denoise_step
from tests.kernels import cases, oracle
from tests.kernels.cases import Maker


def full(rows: int, n: int, seed: int = 0) -> Operands:
    make = Maker(seed)
    return Operands(
        x=make.normal(rows, n),
        model_output=make.normal(2 * rows, n),
        coefficients=cases.table(make, rows),
        unconditional_row=rows + torch.arange(rows),
        history=make.normal(rows, 3, n),
        noise=make.normal(rows, n),
        known=make.normal(rows, n),
        observed=make.below(2, rows, n).bool(),
        renoise=make.normal(rows, n),
    )


def test_every_term_is_as_written_in_the_literature() -> None:
    rows, n = 7, 40
    given = full(rows, n)
    actual = denoise_step(**given._asdict())
    wide = {
        name: value.double().numpy()
        for name, value in given._asdict().items()
        if isinstance(value, torch.Tensor)
    }
    for i in range(rows):
        inpainted = wide["coefficients"][i, 11:13].any()
        row = oracle.DenoiseRow(
            wide["coefficients"][i], wide["x"][i], wide["model_output"][i], wide["model_output"][rows + i],
            wide["history"][i], wide["noise"][i], wide["known"][i], (wide["observed"][i] > 0) & inpainted,
            wide["renoise"][i],
        )  # fmt: skip
        for one, exact in zip(actual, row.step(), strict=True):
            np.testing.assert_allclose(one[i], exact, rtol=2e-6, atol=4e-6)


def test_neutral_coefficients_return_the_network_s_own_x0() -> None:
    x, output = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    following, x0 = denoise_step(x, output, torch.tensor([Coefficients()] * 2))
    assert len(Coefficients()) == COLUMNS
    assert torch.equal(x0, output)
    assert torch.equal(following, output)


def test_a_row_without_guidance_ignores_the_scale_exactly() -> None:
    x, output = torch.randn(2, 50), torch.randn(3, 50)
    coefficients = torch.tensor([Coefficients(g=7.5), Coefficients(g=2.0)])
    _, x0 = denoise_step(x, output, coefficients, unconditional_row=torch.tensor([0, 2]))
    assert torch.equal(x0[0], output[0])
    assert torch.equal(x0[1], output[2] + 2.0 * (output[1] - output[2]))


def test_operands_with_coefficient_zero_may_hold_anything() -> None:
    rows, n = 4, 33
    given = full(rows, n)
    coefficients = given.coefficients.clone()
    coefficients[0, 7:11], coefficients[0, 11:13] = 0.0, 0.0
    clean = given._replace(coefficients=coefficients)
    poison: dict[str, Any] = {
        name: torch.cat((torch.full_like(value[:1], torch.nan), value[1:]))
        for name, value in clean._asdict().items()
        if name in ("history", "noise", "known", "renoise")
    }
    poisoned = clean._replace(**poison)
    expected, actual = denoise_step(**clean._asdict()), denoise_step(**poisoned._asdict())
    assert all(torch.equal(one, other) for one, other in zip(expected, actual, strict=True))


def test_absent_operands_equal_switched_off_ones_bit_for_bit() -> None:
    x = torch.tensor([[-0.0, 0.0, -1.0]])
    off = torch.tensor([Coefficients(a=1.0, b=0.0)])
    extra = torch.ones(1, 3)
    plain, _ = denoise_step(x, x, off)
    whole, _ = denoise_step(
        x, x, off, history=extra[:, None], noise=extra, known=extra, observed=extra.bool(), renoise=extra
    )
    assert torch.equal(plain.view(torch.int32), whole.view(torch.int32))


@pytest.mark.parametrize("shape", [(1,), (3, 8, 8), (1000,)])
def test_a_row_alone_equals_the_row_in_any_batch(shape: tuple[int, ...]) -> None:
    case = cases.denoise_case(9, shape, torch.float32, "drawn", Maker(1))
    batch = case.reference(*case.operands)
    for index in (0, 4, 8):
        alone = case.reference(*case.of_rows(torch.tensor([index])))
        assert all(torch.equal(one[0], whole[index]) for one, whole in zip(alone, batch, strict=True))


def test_drawn_noise_equals_the_same_noise_given() -> None:
    from kernels.philox import STREAM_RENOISE, STREAM_STEP, STREAMS_PER_PARTICLE, philox_normal

    given = Operands(*cases.denoise_case(5, (30,), torch.float32, "drawn", Maker(2)).operands)
    assert given.seed is not None
    assert given.particle is not None
    assert given.row is not None
    assert given.line is not None
    noise, renoise = (
        philox_normal(given.seed, given.row, given.line, stream + STREAMS_PER_PARTICLE * given.particle, 30)
        for stream in (STREAM_STEP, STREAM_RENOISE)
    )
    drawn = denoise_step(**given._asdict())
    handed = denoise_step(**given._replace(seed=None, noise=noise, renoise=renoise)._asdict())
    assert all(torch.equal(one, other) for one, other in zip(drawn, handed, strict=True))


def test_nan_of_the_network_reaches_the_state() -> None:
    output = torch.zeros(1, 4)
    output[0, 2] = torch.nan
    following, x0 = denoise_step(torch.zeros(1, 4), output, torch.tensor([Coefficients(lo=-1.0, hi=1.0)]))
    assert following[0].isnan().tolist() == x0[0].isnan().tolist() == [False, False, True, False]
