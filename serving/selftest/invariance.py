"""Sample, hide half, complete: the rows' law must not change (Geweke 2004, for conditional sampling)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from serving.families.request import Operation
from serving.families.result import Completed, CompletionKind
from serving.selftest.check import PERMUTED_ALARM, Finding, by_p_value, not_applicable
from serving.selftest.completions import halves
from serving.selftest.statistics import swapped_pairs
from serving.selftest.subject import Subject

_MEANING = {
    CompletionKind.EXACT: "completions are exact: a FAIL says that Sample and Inpaint follow different laws",
    CompletionKind.CONSISTENT: "exact in the limit: a FAIL says that this many particles are too few",
    CompletionKind.APPROXIMATE: "completions are approximate: a FAIL says how far from the conditional law",
}


async def completion_invariance(subject: Subject) -> Finding:
    """A row and its completion, given what they share, are two draws of one law: exchangeable."""
    method, sampler = subject.method(Operation.INPAINT), subject.method(Operation.SAMPLE)
    if method is None or sampler is None or subject.spec.data.variable:
        return not_applicable("Sample and Inpaint are not both defined on rows of one shape")
    if not (affordable := subject.affordable(method)):
        return not_applicable(
            f"{method.name} takes {method.row_seconds:.2g} s a row: too dear for a self-test"
        )
    rows = await subject.sampled(affordable)
    n = len(rows)
    request = subject.request(Operation.INPAINT, method, n)
    completed = await subject.ask(replace(request, data=rows.data, observed=halves(rows)))
    assert isinstance(completed, Completed)
    if completed.kind is CompletionKind.POINT_ESTIMATE:
        return not_applicable("completions are point estimates, not draws")
    one, other = (v.reshape(n, -1).astype(np.float64) for v in (rows.data, completed.data[:, 0]))
    distance, p_value = swapped_pairs(one, other, subject.seed)
    detail = f"energy distance of {n} samples from their completions, by swapping within pairs; "
    return by_p_value(p_value, distance, detail + _MEANING[completed.kind], PERMUTED_ALARM)
