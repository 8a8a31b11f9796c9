"""Is the graph the network in the folder? Compared with transformers' own logits on seeded rows."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from export.package.cached_run import read_at_once, read_in_steps, steps_invariant
from export.package.run_graph import open_graph
from export.package.schema import Component, Parity
from export.package.verify import ROWS, TOLERANCE, Arrays, Run, compare, refused, verify
from export.transformers.folder import Source

LENGTH = 48  # of the rows compared
CHUNK = 17  # read at once before the rest comes token by token
LOG_PROB_TOLERANCE = 1e-4  # nats per symbol, where the weights are the source's in float32


@dataclass(frozen=True)
class Reference:
    """What transformers says of seeded rows: ``tokens`` [rows, length], ``logits`` of each, float32."""

    tokens: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]

    @property
    def rows(self) -> Arrays:
        """The rows as a scorer's input."""
        return {"tokens": self.tokens}

    def __call__(self, arrays: Arrays) -> Arrays:
        """The first rows again."""
        return {"logits": self.logits[: len(arrays["tokens"])]}

    def log_prob(self) -> npt.NDArray[np.float64]:
        """log p of every token after the first, [rows, length - 1]."""
        law = torch.log_softmax(torch.from_numpy(self.logits).double(), dim=-1)[:, :-1]
        found: npt.NDArray[np.float64] = law.gather(2, torch.from_numpy(self.tokens)[:, 1:, None]).numpy()
        return found[..., 0]


def reference(source: Source, begin: int, vocabulary: int, max_length: int) -> Reference:
    """Run transformers' network in float32 once, and let go of it before any graph is opened."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, vocabulary, (max(ROWS), min(LENGTH, max_length)))
    tokens[:, 0] = begin
    library: Any = import_module("transformers")
    import_module("transformers.utils.logging").disable_progress_bar()
    model = getattr(library, source.architecture).from_pretrained(
        source.folder, dtype=torch.float32, local_files_only=True, attn_implementation="eager"
    )
    with torch.inference_mode():
        logits = model.eval()(torch.from_numpy(tokens), use_cache=False).logits.float().numpy()
    del model
    gc.collect()
    return Reference(tokens, logits)


def check_exact(path: Path, component: Component, wanted: Reference) -> Parity:
    """Compare a float32 graph with its source; PackageError (PARITY) where they differ."""
    run = open_graph(path, component)
    at_once = read_at_once(run, component)
    parity = verify(_logits(at_once), wanted, wanted.rows, described="seeded tokens")
    steps = read_in_steps(run, component, CHUNK)(wanted.rows)
    stepped = compare(steps, wanted(wanted.rows), "token by token")["logits"]
    if stepped > TOLERANCE * max(1.0, float(np.abs(wanted.logits).max())):
        raise refused(f"token by token the error is {stepped:.2g}", "The cache is wrong: please report it")
    error = _log_prob_error(at_once, wanted)
    if error > LOG_PROB_TOLERANCE:
        raise refused(f"log p differs by {error:.2g} nats per symbol", "Please report it")
    largest = max(parity.max_abs_error, stepped)
    same = bool(parity.batch_invariant) and steps_invariant(run, component, wanted.tokens)
    return parity.model_copy(
        update={"max_abs_error": largest, "log_prob_error": error, "batch_invariant": same}
    )


def check_rounded(path: Path, component: Component, wanted: Reference, described: str) -> Parity:
    """Record how far a graph with rounded weights is from its source; rows may not see one another."""
    run = open_graph(path, component)
    at_once = read_at_once(run, component)
    parity = verify(_logits(at_once), wanted, wanted.rows, described=described, tolerance=float("inf"))
    same = bool(parity.batch_invariant) and steps_invariant(run, component, wanted.tokens)
    error = _log_prob_error(at_once, wanted)
    return parity.model_copy(update={"log_prob_error": error, "batch_invariant": same})


def _log_prob_error(run: Run, wanted: Reference) -> float:
    """Mean absolute difference of log p(next token), in nats."""
    found = np.asarray(run(wanted.rows)["log_prob"], np.float64)[:, :-1, 0]
    return float(np.abs(found - wanted.log_prob()).mean())


def _logits(run: Run) -> Run:
    return lambda arrays: {"logits": run(arrays)["logits"]}
