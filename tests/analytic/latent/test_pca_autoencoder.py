from __future__ import annotations

import numpy as np
import pytest
import torch

from export.package.schema import Autoencoder
from serving.errors import FailedPrecondition
from serving.families.calibration import Calibration
from serving.families.drive import Network
from serving.families.latent.autoencoder import AutoencoderFamily
from serving.families.request import Operation, Request
from serving.families.result import Anomalies, Completed, CompletionKind, Encoded, Interpolated, Reconstructed
from serving.families.rows import Tensors
from tests.analytic.latent.closed_form import B, W, X, ask, component, model_spec, repeated, vector_space

BASIS = np.linalg.qr(W)[0]
PROJECTION = BASIS @ BASIS.T
GIVEN = np.array([True, False, True, True])


def _networks() -> dict[str, Network]:
    basis, offset = torch.from_numpy(BASIS), torch.from_numpy(B)

    def encoder(inputs: Tensors) -> Tensors:
        return {"latent": (inputs["x"].double() - offset) @ basis}

    def decoder(inputs: Tensors) -> Tensors:
        return {"x": inputs["latent"].double() @ basis.T + offset}

    return {"encoder": encoder, "decoder": decoder}


NETWORKS = _networks()
SPEC = model_spec(
    vector_space(4),
    {
        "encoder": component({"x": (4,)}, {"latent": (2,)}),
        "decoder": component({"latent": (2,)}, {"x": (4,)}),
    },
    Autoencoder(latent_shape=(2,)),
)
FAMILY = AutoencoderFamily(SPEC)


def test_completion_is_the_fixed_point_and_converges_at_its_rate() -> None:
    missing = ~GIVEN
    inside, across = PROJECTION[np.ix_(missing, missing)], PROJECTION[np.ix_(missing, GIVEN)]
    truth = B[missing] + np.linalg.solve(np.eye(1) - inside, across @ (X - B)[GIVEN])
    rate = float(np.abs(np.linalg.eigvals(inside)).max())
    errors = []
    for sweeps in (4, 8, 200):
        result = ask(
            FAMILY, NETWORKS, Operation.INPAINT, None, {"sweeps": sweeps}, data=repeated(X, 1),
            observed=GIVEN[None], completions=3,
        )  # fmt: skip
        assert isinstance(result, Completed)
        assert result.kind is CompletionKind.POINT_ESTIMATE
        np.testing.assert_array_equal(
            result.data[0, :, GIVEN], np.repeat(X.astype(np.float32)[GIVEN, None], 3, axis=1)
        )
        np.testing.assert_array_equal(result.data[0, 0], result.data[0, 2])
        errors.append(float(np.abs(result.data[0, 0, missing] - truth).max()))
    assert errors[2] < 1e-5
    assert errors[1] / errors[0] == pytest.approx(rate**4, rel=0.05)


def test_reconstruction_is_the_projection() -> None:
    truth = B + PROJECTION @ (X - B)
    result = ask(FAMILY, NETWORKS, Operation.RECONSTRUCT, data=repeated(X, 1))
    assert isinstance(result, Reconstructed)
    np.testing.assert_allclose(result.data[0], truth, atol=1e-6)
    assert result.error[0] == pytest.approx(np.sqrt(np.square(X - truth).mean()), abs=1e-6)


def test_anomaly_score_is_the_squared_distance_from_the_plane() -> None:
    calibration = Calibration.fit("p", {"reconstruction": [0.0, 1e-4, 1.0, 9.0]}, {})
    family = AutoencoderFamily(SPEC, calibration)
    data = np.stack([X, B]).astype(np.float32)
    result = ask(family, NETWORKS, Operation.SCORE_ANOMALY, None, {"score_map": True}, data=data)
    assert isinstance(result, Anomalies)
    assert result.score[0] == pytest.approx(np.square((np.eye(4) - PROJECTION) @ (X - B)).sum(), abs=1e-6)
    assert result.score_map is not None
    np.testing.assert_allclose(result.score_map.sum(axis=1), result.score, atol=1e-6)
    assert result.p_value is not None
    assert result.p_value[0] == pytest.approx(3 / 5)
    assert result.p_value[1] == pytest.approx(4 / 5, abs=0.21)


def test_codes_of_a_projection_are_idempotent_and_walk_straight() -> None:
    encoded = ask(FAMILY, NETWORKS, Operation.ENCODE, None, {"round_trip": True}, data=repeated(X, 2))
    assert isinstance(encoded, Encoded)
    np.testing.assert_allclose(encoded.latents[0], (X - B) @ BASIS, atol=1e-6)
    assert encoded.round_trip_error is not None
    walk = ask(FAMILY, NETWORKS, Operation.INTERPOLATE, data=repeated(X, 1), end=repeated(B, 1))
    assert isinstance(walk, Interpolated)
    assert walk.path == "lerp"
    times = np.linspace(0, 1, 8)[:, None]
    np.testing.assert_allclose(walk.data[0], B + (1 - times) * (PROJECTION @ (X - B)), atol=1e-6)


@pytest.mark.parametrize("operation", [Operation.SAMPLE, Operation.LIKELIHOOD])
def test_there_is_no_density(operation: Operation) -> None:
    capability = next(c for c in FAMILY.capabilities() if c.operation is operation)
    assert not capability.supported
    with pytest.raises(FailedPrecondition, match="defines no p") as caught:
        FAMILY.program(Request(operation, "", {}, 0, 0, 1))
    assert caught.value.reason == "OPERATION_UNDEFINED"
    assert caught.value.message == capability.reason
