"""Every operation of a diffusion model answers, or says why not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from serving.errors import FailedPrecondition, InvalidArgument
from serving.families.calibration import Calibration
from serving.families.capability import Method
from serving.families.diffusion.family import DiffusionFamily
from serving.families.drive import run_alone
from serving.families.request import Operation, Request
from serving.families.result import (
    Anomalies,
    Completed,
    Decoded,
    Encoded,
    Interpolated,
    Reconstructed,
    Result,
    Sampled,
    SampleKind,
    Scored,
)
from tests.analytic.diffusion.gaussian import diffusion, levels_space, package
from tests.serving.families.diffusion.networks import LABEL, Elementwise

ELEMENTS = 20
ROWS = 3
KINDS = ("vp", "ve", "flow")
ANSWERS: dict[Operation, type] = {
    Operation.SAMPLE: Sampled,
    Operation.LIKELIHOOD: Scored,
    Operation.INPAINT: Completed,
    Operation.SCORE_ANOMALY: Anomalies,
    Operation.ENCODE: Encoded,
    Operation.DECODE: Decoded,
    Operation.RECONSTRUCT: Reconstructed,
    Operation.INTERPOLATE: Interpolated,
}


def _family(kind: str, calibrated: bool = True) -> DiffusionFamily:
    section = diffusion(kind, clip_range=(-1.0, 1.0), clip_default=True)
    values = {"typicality": np.linspace(0.0, 5.0, 40), "denoising_error": np.linspace(0.0, 5.0, 40)}
    calibration = Calibration.fit("d", values, {"typicality": [1.0]}) if calibrated else None
    return DiffusionFamily(package(section, levels_space(ELEMENTS), (LABEL,)), calibration)


def _request(operation: Operation, method: Method, rows: int = ROWS, **changes: object) -> Request:
    parameters = {p.name: p.default for p in method.parameters if p.default is not None}
    few = {
        "steps": 6,
        "particles": 4,
        "importance_samples": 2,
        "points": 3,
        "resamplings": 2,
        "jump_length": 2,
    }
    parameters |= {name: value for name, value in few.items() if name in parameters}
    data = (np.arange(rows * ELEMENTS).reshape(rows, ELEMENTS) % 17).astype(np.uint8)
    observed = np.zeros((rows, ELEMENTS), np.bool_)
    observed[:, : ELEMENTS // 2] = True
    found: dict[str, object] = {
        "data": data,
        "end": data[:, ::-1].copy() if operation is Operation.INTERPOLATE else None,
        "latents": np.zeros((rows, ELEMENTS), np.float32),
        "observed": observed if operation is Operation.INPAINT else None,
        "conditions": {"label": np.full(rows, 3, np.int64)},
        "completions": 2 if operation is Operation.INPAINT else 1,
    }
    found |= changes
    return Request(operation, method.name, parameters, 9, 0, rows, **found)  # type: ignore[arg-type]


def _answer(family: DiffusionFamily, request: Request) -> tuple[Result, int]:
    network = Elementwise((ELEMENTS,))
    tables = family.tables({}, 256, torch.device("cpu"))
    return run_alone(family.program(request), {"denoiser": network}, tables), network.rows


def _cases() -> list[tuple[str, Operation, str]]:
    return [
        (kind, capability.operation, method.name)
        for kind in KINDS
        for capability in _family(kind).capabilities()
        for method in capability.methods
    ]


def _method(family: DiffusionFamily, operation: Operation, name: str) -> Method:
    capability = next(c for c in family.capabilities() if c.operation is operation)
    return next(m for m in capability.methods if m.name == name)


@pytest.mark.parametrize(("kind", "operation", "name"), _cases())
def test_every_method_answers_at_the_cost_that_it_announced(
    kind: str, operation: Operation, name: str
) -> None:
    family = _family(kind)
    request = _request(operation, _method(family, operation, name))
    result, rows = _answer(family, request)
    assert isinstance(result, ANSWERS[operation])
    assert rows == sum(family.network_rows(request).values())
    assert family.depth(request) >= 1
    if not isinstance(result, Anomalies):
        assert result.parameters == request.parameters


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_one_capability_per_operation_each_with_one_default(kind: str) -> None:
    capabilities = _family(kind).capabilities()
    assert [c.operation for c in capabilities] == list(Operation)
    assert all(sum(m.is_default for m in c.methods) == 1 for c in capabilities)


@pytest.mark.parametrize(("kind", "operation", "name"), _cases())
def test_the_first_rows_of_many_equal_a_smaller_request(kind: str, operation: Operation, name: str) -> None:
    family = _family(kind)
    method = _method(family, operation, name)
    many, _ = _answer(family, _request(operation, method, 5))
    few, _ = _answer(family, _request(operation, method, 2))
    for field in ("data", "log_prob", "latents", "score", "standard_error", "effective_sample_size"):
        value = getattr(many, field, None)
        if value is not None:
            np.testing.assert_array_equal(value[:2], getattr(few, field))


@pytest.mark.parametrize("name", ["smc", "repaint", "predictor_corrector", "replacement"])
def test_given_entries_return_bit_for_bit_and_others_are_never_read(name: str) -> None:
    family = _family("vp")
    request = _request(Operation.INPAINT, _method(family, Operation.INPAINT, name))
    assert request.data is not None
    assert request.observed is not None
    other = np.where(request.observed, request.data, 255 - request.data)
    found, _ = _answer(family, request)
    again, _ = _answer(family, Request(**{**request.__dict__, "data": other}))
    assert isinstance(found, Completed)
    assert isinstance(again, Completed)
    np.testing.assert_array_equal(found.data, again.data)
    given = np.broadcast_to(request.observed[:, None], found.data.shape)
    np.testing.assert_array_equal(found.data[given], np.repeat(request.data[:, None], 2, 1)[given])


def test_completions_do_not_depend_on_how_many_there_are() -> None:
    family = _family("vp")
    for name in ("smc", "repaint"):
        request = _request(Operation.INPAINT, _method(family, Operation.INPAINT, name), completions=4)
        four, _ = _answer(family, request)
        two, _ = _answer(family, Request(**{**request.__dict__, "completions": 2}))
        assert isinstance(four, Completed)
        assert isinstance(two, Completed)
        np.testing.assert_array_equal(four.data[:, :2], two.data)


def test_guidance_makes_another_law_and_says_so() -> None:
    family = _family("vp")
    request = _request(Operation.SAMPLE, _method(family, Operation.SAMPLE, "ddim"))
    guided = Request(**{**request.__dict__, "parameters": {**request.parameters, "guidance_scale": 2.0}})
    plain, rows = _answer(family, request)
    strong, twice = _answer(family, guided)
    assert isinstance(plain, Sampled)
    assert isinstance(strong, Sampled)
    assert plain.kind is SampleKind.DISCRETIZED
    assert strong.kind is SampleKind.MODIFIED
    assert twice == 2 * rows


def test_without_calibration_there_is_no_anomaly_score() -> None:
    family = _family("vp", calibrated=False)
    request = _request(Operation.SCORE_ANOMALY, _method(family, Operation.SCORE_ANOMALY, "typicality"))
    with pytest.raises(FailedPrecondition) as raised:
        family.program(request)
    assert raised.value.reason == "NOT_CALIBRATED"
    network = Elementwise((ELEMENTS,))
    raw = run_alone(family.statistics(request), {"denoiser": network}, {})
    assert isinstance(raw, Anomalies)
    assert raw.p_value is None


def test_score_map_sums_to_the_statistic() -> None:
    family = _family("vp")
    request = _request(Operation.SCORE_ANOMALY, _method(family, Operation.SCORE_ANOMALY, "denoising_error"))
    request = Request(**{**request.__dict__, "parameters": {"score_map": True}})
    result, _ = _answer(family, request)
    assert isinstance(result, Anomalies)
    assert result.score_map is not None
    np.testing.assert_allclose(result.score_map.reshape(ROWS, -1).mean(axis=1), result.score, rtol=1e-5)


def test_a_partly_observed_row_has_no_likelihood_here() -> None:
    family = _family("vp")
    observed = np.zeros((ROWS, ELEMENTS), np.bool_)
    method = _method(family, Operation.LIKELIHOOD, "variational_bound")
    with pytest.raises(InvalidArgument):
        family.program(_request(Operation.LIKELIHOOD, method, observed=observed))
