"""What a component's graph is asked to do: seeded rows to compare answers on, and a run to time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export.package.cached_run import read_at_once, step_inputs, steps_invariant
from export.package.contracts import scores_itself
from export.package.run_graph import TORCHSCRIPT_ROWS, open_graph, padded
from export.package.schema import Component, ModelSpec
from export.package.seeded import seeded_inputs, seeded_tokens
from export.package.verify import ROWS, Arrays, Run
from export.tune.candidate import Form

PAST = 64  # tokens in the caches of a timed decoding step


@dataclass(frozen=True)
class Opened:
    """A form's graph: ``answer`` maps seeded inputs to outputs; ``step(rows)`` is the run that is timed."""

    answer: Run
    inputs: Arrays
    step: Callable[[int], Callable[[], object]]
    invariant: Callable[[], bool] = lambda: True  # of what ``answer`` does not show


def opened(spec: ModelSpec, name: str, form: Form, threads: int) -> Opened:
    """Open the graph of ``form`` for component ``name``, with ``threads`` for the timed run."""
    run = open_graph(form.path, form.component, threads)
    if name == "decoder" and scores_itself(spec):
        return _decoder(spec, form.component, run)
    inputs = seeded_inputs(spec, name, max(ROWS))
    timed = padded(run) if form.component.format == "torchscript" else run

    def step(rows: int) -> Callable[[], object]:
        given = seeded_inputs(spec, name, rows)
        return lambda: timed(given)

    return Opened(run, inputs, step)


def _decoder(spec: ModelSpec, component: Component, run: Run) -> Opened:
    """Whole rows are compared, one new token per row is timed."""

    def step(rows: int) -> Callable[[], object]:
        tokens = seeded_tokens(spec, rows, 2)["tokens"][:, -1:]
        given = step_inputs(component, np.asarray(tokens, np.int64), PAST)
        return lambda: run(given)

    rows = seeded_tokens(spec, max(ROWS))
    tokens = np.asarray(rows["tokens"], np.int64)
    return Opened(read_at_once(run, component), rows, step, lambda: steps_invariant(run, component, tokens))


def log_prob_error(spec: ModelSpec, found: Arrays, wanted: Arrays, inputs: Arrays) -> float | None:
    """Mean absolute difference of log p(symbol) in nats; None where nothing here is a law of symbols."""
    if spec.autoregressive is None or "logits" not in wanted:
        return None
    symbols = np.asarray(inputs["tokens"], np.int64) % spec.autoregressive.vocabulary
    ours, theirs = (_log_prob(values["logits"], symbols) for values in (found, wanted))
    return float(np.abs(ours - theirs).mean())


def _log_prob(logits: npt.NDArray[np.generic], symbols: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    law = np.asarray(logits, np.float64)
    law = law - law.max(axis=-1, keepdims=True)
    law -= np.log(np.exp(law).sum(axis=-1, keepdims=True))
    return np.take_along_axis(law, symbols[..., None], axis=-1)[..., 0]


def rows_of(form: Form, rows: int) -> int:
    """Rows that really run: TorchScript is padded."""
    return -(-rows // TORCHSCRIPT_ROWS) * TORCHSCRIPT_ROWS if form.component.format == "torchscript" else rows
