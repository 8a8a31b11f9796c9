"""p-values of the model's own samples: uniform where the calibration rows have the model's law."""

from __future__ import annotations

from serving.errors import FailedPrecondition
from serving.families.request import Operation
from serving.families.result import Anomalies
from serving.selftest.check import Finding, by_p_value, not_applicable
from serving.selftest.statistics import kolmogorov
from serving.selftest.subject import Subject


async def p_values_uniform(subject: Subject) -> Finding:
    """Kolmogorov-Smirnov distance of the p-values from uniform, both samples being random."""
    method = subject.method(Operation.SCORE_ANOMALY)
    if subject.method(Operation.SAMPLE) is None or subject.spec.data.variable:
        return not_applicable("there are no samples, or they are cut short here")
    if method is None or not subject.affordable(method):
        return not_applicable("anomaly scores are undefined, or too dear for a self-test")
    rows = await subject.sampled(subject.affordable(method))
    try:
        found = await subject.about(Operation.SCORE_ANOMALY, method, rows)
    except FailedPrecondition as error:
        return not_applicable(error.message)
    assert isinstance(found, Anomalies)
    if found.p_value is None:
        return not_applicable("this method has no p-values")
    distance, p_value = kolmogorov(found.p_value, found.calibration_size)
    sizes = f"{len(rows)} samples against {found.calibration_size} calibration rows"
    detail = f"distance from uniform of the p-values of {sizes}"
    return by_p_value(p_value, distance, detail + "; a FAIL says that samples and data have different laws")
