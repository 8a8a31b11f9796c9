from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from serving.errors import FailedPrecondition
from serving.families.request import Operation, Request
from serving.families.result import Decoded, Encoded, Interpolated, Reconstructed, Sampled
from tests.analytic.ar.chains import START, Chain, chain_spec, log_prob, request

MIDPOINT = "probability_integral_transform"
RANDOMIZED = "randomized_probability_integral_transform"


def rows(count: int, seed: int = 0) -> NDArray[np.int32]:
    sample = Chain().ask(request(Operation.SAMPLE, "ancestral", count, seed))
    assert isinstance(sample, Sampled)
    return sample.data.astype(np.int32)


def encoded(chain: Chain, ask: Request) -> Encoded:
    result = chain.ask(ask)
    assert isinstance(result, Encoded)
    return result


@pytest.mark.parametrize("method", [MIDPOINT, RANDOMIZED])
def test_decode_of_encode_is_the_row_itself(method: str) -> None:
    data = np.random.default_rng(0).integers(0, 4, (200, 8)).astype(np.int32)
    chain = Chain(capacity=64)
    latents = encoded(chain, request(Operation.ENCODE, method, 200, data=data)).latents
    assert latents.dtype == np.float32
    decoded = chain.ask(request(Operation.DECODE, MIDPOINT, 200, latents=latents))
    assert isinstance(decoded, Decoded)
    assert (decoded.data == data).all()


def test_randomized_latents_are_standard_normal() -> None:
    data = rows(2000)
    latents = encoded(Chain(), request(Operation.ENCODE, RANDOMIZED, 2000, data=data)).latents
    for position in range(8):
        statistic = stats.kstest(latents[:, position], "norm").statistic
        assert statistic < np.sqrt(np.log(2 / 1e-6) / (2 * 2000))
    correlation = np.corrcoef(latents.T)
    assert np.abs(correlation - np.eye(8)).max() < 4.9 / np.sqrt(2000)


def test_decoded_normals_follow_the_chain() -> None:
    latents = np.random.default_rng(0).standard_normal((2000, 8)).astype(np.float32)
    decoded = Chain().ask(request(Operation.DECODE, MIDPOINT, 2000, latents=latents))
    assert isinstance(decoded, Decoded)
    first = np.bincount(decoded.data[:, 0].astype(np.int64), minlength=4) / 2000
    assert (np.abs(first - START) < 4.9 * np.sqrt(START * (1 - START) / 2000)).all()
    nats = -np.mean([log_prob(row) for row in decoded.data.astype(np.int32)]) / 8
    assert nats == pytest.approx(0.764015, abs=0.04)


def test_the_midpoint_is_the_quantile_of_half_a_symbols_share() -> None:
    data = np.array([[1, 1, 1, 1, 1, 1, 1, 1]], np.int32)
    latents = encoded(Chain(), request(Operation.ENCODE, MIDPOINT, 1, data=data)).latents
    assert latents[0, 0] == pytest.approx(stats.norm.ppf(0.4 + 0.15), abs=1e-5)
    assert latents[0, 1] == pytest.approx(stats.norm.ppf(0.05 + 0.4), abs=1e-5)


def test_round_trip_error_is_measured() -> None:
    ask = request(Operation.ENCODE, MIDPOINT, 5, data=rows(5), parameters={"round_trip": True})
    result = encoded(Chain(), ask)
    assert result.round_trip_error is not None
    assert (result.round_trip_error == 0.0).all()


def test_latents_and_data_keep_the_shape_of_a_row() -> None:
    chain = Chain(chain_spec((2, 4), "image", ("height", "width")))
    data = rows(3).reshape(3, 2, 4)
    assert encoded(chain, request(Operation.ENCODE, MIDPOINT, 3, data=data)).latents.shape == (3, 2, 4)
    assert chain.family.latent is not None
    assert chain.family.latent.shape == (2, 4)
    result = chain.ask(request(Operation.RECONSTRUCT, MIDPOINT, 3, data=data))
    assert isinstance(result, Reconstructed)
    assert (result.data == data).all()
    assert (result.error == 0.0).all()


def test_interpolation_starts_and_ends_with_the_given_rows() -> None:
    start, end = rows(4, 1), rows(4, 2)
    parameters = {"points": 6, "path": "slerp"}
    chain = Chain()
    ask = request(Operation.INTERPOLATE, MIDPOINT, 4, data=start, end=end, parameters=parameters)
    result = chain.ask(ask)
    assert isinstance(result, Interpolated)
    assert result.data.shape == (4, 6, 8)
    assert (result.data[:, 0] == start).all()
    assert (result.data[:, -1] == end).all()
    assert result.path == "slerp"
    assert result.data[:, 1:-1].max() < 4
    assert chain.network.rows == chain.family.network_rows(ask)["scorer"]


def test_latents_depend_on_seed_and_row_only() -> None:
    data = rows(6)
    whole = encoded(Chain(), request(Operation.ENCODE, RANDOMIZED, 6, data=data)).latents
    part = encoded(Chain(), request(Operation.ENCODE, RANDOMIZED, 2, data=data[3:5], first_row=3)).latents
    assert (whole[3:5] == part).all()


def test_rows_of_variable_length_have_no_latents() -> None:
    chain = Chain(chain_spec((-1,)))
    assert chain.family.latent is None
    ask = request(Operation.ENCODE, MIDPOINT, 1, data=rows(1))
    with pytest.raises(FailedPrecondition, match="differ in length") as refusal:
        chain.family.program(ask)
    assert refusal.value.reason == "OPERATION_UNDEFINED"
