"""A cached decoder as a function of whole rows, for verification: read at once, or token by token."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from export.package.schema import Component
from export.package.verify import Arrays, Run

Ids = npt.NDArray[np.int64]
STEP_ROWS = (1, 2, 3)  # besides all
Caches = dict[str, npt.NDArray[Any]]


def read_at_once(run: Run, component: Component) -> Run:
    """A selective decoder that reads rows ``tokens`` [rows, length] in one run -> ``logits``, ``log_prob``.

    [rows, length, vocabulary] and [rows, length]: the logarithm of each next token's probability (of token 0
    after the last one).
    """

    def scorer(arrays: Arrays) -> Arrays:
        tokens = np.ascontiguousarray(arrays["tokens"], np.int64)
        targets = np.concatenate([tokens[:, 1:], np.zeros_like(tokens[:, :1])], axis=1)
        found = run({**_step(tokens, 0, targets), **_caches(component, *tokens.shape)})
        return {name: found[name].reshape(*tokens.shape, -1) for name in ("logits", "log_prob")}

    return scorer


def read_in_steps(run: Run, component: Component, chunk: int) -> Run:
    """The same decoder fed the first ``chunk`` tokens at once and then one at a time -> ``logits``."""

    def scorer(arrays: Arrays) -> Arrays:
        tokens = np.ascontiguousarray(arrays["tokens"], np.int64)
        caches, steps = _caches(component, *tokens.shape), []
        borders = [0, *range(min(chunk, tokens.shape[1]), tokens.shape[1] + 1)]
        for past, until in itertools.pairwise(borders):
            part = tokens[:, past:until]
            found = run({**_step(part, past, np.zeros_like(part)), **caches})
            steps.append(found["logits"].reshape(*part.shape, -1))
            caches = {name: np.asarray(found[name.replace("past", "present")]) for name in caches}
        return {"logits": np.concatenate(steps, axis=1)}

    return scorer


def steps_invariant(run: Run, component: Component, tokens: Ids) -> bool:
    """Whether one new token of each row has the same bits in runs of any number of rows of ``tokens``.

    ``tokens`` [rows, at least 2]: the first is in the caches. Rows of 4-bit weights never run alone.
    """
    counts = [count for count in STEP_ROWS if count > 1 or component.weights != "int4"]
    whole = _one_step(run, component, tokens)
    for count in counts:
        for start in range(0, len(tokens) - count + 1, count):
            if _one_step(run, component, tokens[start : start + count]) != whole[start : start + count]:
                return False
    return True


def _one_step(run: Run, component: Component, tokens: Ids) -> list[bytes]:
    """Read the first token of each row, then the second: the bytes of each row's logits."""
    first, second = tokens[:, :1], tokens[:, 1:2]
    begun = {**_step(first, 0, np.zeros_like(first)), **_caches(component, len(tokens), 2)}
    found = run(begun)
    caches = {n: np.asarray(found[n.replace("past", "present")]) for n in begun if n.startswith("past_")}
    logits = run({**_step(second, 1, np.zeros_like(second)), **caches})["logits"]
    return [row.tobytes() for row in logits]


def step_inputs(component: Component, tokens: Ids, past: int) -> Caches:
    """All inputs of a run that reads ``tokens`` [rows, new] behind ``past`` tokens (all zero) of each row."""
    rows, new = tokens.shape
    return {**_step(tokens, past, np.zeros_like(tokens)), **_caches(component, rows, past + new)}


def _caches(component: Component, rows: int, length: int) -> Caches:
    """Empty caches of ``length`` tokens."""
    shapes = {t.name: (t.row_shape, t.dtype) for t in component.inputs if t.name.startswith("past_")}
    return {
        name: np.zeros((rows, int(shape[0]), length, int(shape[2])), dtype)
        for name, (shape, dtype) in shapes.items()
    }


def _step(tokens: Ids, past: int, targets: Ids) -> Caches:
    rows, new = tokens.shape
    return {
        "tokens": tokens,
        "seqlens_k": np.full(rows, past + new - 1, np.int32),
        "total_sequence_length": np.array(past + new, np.int32),
        "wanted": np.arange(rows * new),
        "targets": targets.reshape(-1),
    }
