"""Sample, hide half, complete: the rows' law must not change (Geweke 2004, for conditional sampling)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from serving.families.capability import Method
from serving.families.request import Operation
from serving.families.result import Completed, CompletionKind
from serving.selftest.check import PERMUTED_ALARM, Finding, by_p_value, not_applicable
from serving.selftest.completions import halves
from serving.selftest.statistics import swapped_pairs
from serving.selftest.subject import Subject

LEFT_OUT = {"enumerate"}  # takes few unknown entries
_MEANING = {
    CompletionKind.EXACT: "completions are exact: a FAIL says that Sample and Inpaint follow different laws",
    CompletionKind.CONSISTENT: "exact in the limit: a FAIL says that this many particles are too few",
    CompletionKind.APPROXIMATE: "completions are approximate: a FAIL says how far from the conditional law",
}


async def completion_invariance(subject: Subject) -> Finding:
    """A row and its completion, given what they share, are two draws of one law: exchangeable."""
    if subject.method(Operation.SAMPLE) is None or subject.spec.data.variable:
        return not_applicable("there are no samples, or no rows of one shape")
    method = _affordable(subject)
    if method is None:
        return not_applicable("no completion method draws within the time of a self-test")
    rows = await subject.sampled(subject.affordable(method))
    n = len(rows)
    request = subject.request(Operation.INPAINT, method, n)
    completed = await subject.ask(replace(request, data=rows.data, observed=halves(rows)))
    assert isinstance(completed, Completed)
    one, other = (v.reshape(n, -1).astype(np.float64) for v in (rows.data, completed.data[:, 0]))
    distance, p_value = swapped_pairs(one, other, subject.seed)
    detail = f"energy distance of {n} samples from their completions by {method.name}, by swapping pairs; "
    return by_p_value(p_value, distance, detail + _MEANING[completed.kind], PERMUTED_ALARM)


def _affordable(subject: Subject) -> Method | None:
    """The default method, or another that draws and costs less."""
    found = sorted(subject.capability(Operation.INPAINT).methods, key=lambda m: not m.is_default)
    drawing = (m for m in found if m.kind != "POINT_ESTIMATE" and m.name not in LEFT_OUT)
    return next((m for m in drawing if subject.affordable(m)), None)
