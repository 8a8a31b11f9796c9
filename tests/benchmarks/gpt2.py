"""GPT-2 124M: tokens per second of our engine against ctranslate2 and transformers, in float32 and 8 bits.

Random weights, shared by all. Every round runs all of them one after the other; figures are medians over
rounds of the ratio within a round, since a shared machine's speed drifts between rounds.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from export.graph.quantize import Quantization
from export.package.read import read_package
from serving.engine.engine import Engine
from serving.engine.messages import ModelKey, Options
from serving.engine.model import LoadedModel
from serving.families.request import Operation, Request, Value
from serving.families.result import Result, Sampled
from tests.benchmarks.figures import Figure
from tests.benchmarks.gpt2_package import REPOSITORY, gpt2_package, network_of
from tests.benchmarks.gpt2_peers import TOP_K, Peer, peers, rounded_peers

TITLE = "GPT-2 124M in float32 against other runtimes"
ROUNDED = "GPT-2 124M with 8-bit weights against other runtimes"
NOTE = (
    "Random weights; top-k 50, 64 new tokens after 8 given ones, one request per sequence, all submitted at "
    "once, prefill included; scoring: rows of 256 tokens. Medians of the ratio within interleaved rounds."
)
GIVEN, NEW, SCORED, SCORED_ROWS = 8, 64, 256, 2
ROUNDS = 5
THREADS = 2
DRAWING: dict[str, Value] = {"temperature": 1.0, "top_k": TOP_K, "top_p": 1.0, "min_p": 0.0}
TARGETS = {1: 1.1, 8: 1.2, 16: 1.8}
ROUNDED_TARGETS = {1: 1.8, 8: 1.3, 16: 1.1}
SCORING = {"transformers": 1.25, "ctranslate2": 1.0}
Ids = NDArray[np.int64]
Work = Callable[[], object]


@dataclass
class Served:
    """Our engine with the model in it."""

    engine: Engine
    model: LoadedModel

    def results(self, requests: list[Request]) -> list[Result]:
        """All at once; raises the first that failed."""
        tickets = [self.engine.submit(self.model.key, request, Options()) for request in requests]
        return [ticket.result() for ticket in tickets]

    def generate(self, prompts: Ids, new: int, **parameters: Value) -> list[Result]:
        """One request for each prompt [rows, symbols], without its begin token."""
        chosen = {**DRAWING, "max_new_tokens": new, **parameters}
        return self.results([_request(Operation.SAMPLE, "ancestral", row, chosen) for row in prompts])

    def score(self, tokens: Ids) -> list[Result]:
        """One request for each row [rows, symbols], without its begin token."""
        chosen: dict[str, Value] = {"per_dimension": False}
        return self.results([_request(Operation.LIKELIHOOD, "exact", row, chosen) for row in tokens])


def _request(operation: Operation, method: str, row: Ids, parameters: Mapping[str, Value]) -> Request:
    data, lengths = row[None].astype(np.int32), np.array([len(row)], np.int32)
    return Request(operation, method, parameters, int(row[0]), 0, 1, data=data, lengths=lengths)


@contextlib.contextmanager
def served(folder: Path, max_rows: int = 16) -> Iterator[Served]:
    """A started engine with the package in ``folder``."""
    engine = Engine(threads=THREADS, max_rows=max_rows)
    engine.start()
    package = read_package(folder)
    try:
        yield Served(engine, engine.load(ModelKey(package.spec.name, package.version), package))
    finally:
        engine.stop()


def run() -> list[Figure]:
    """Ratios of tokens per second, and our own."""
    torch.set_num_threads(THREADS)
    network = network_of()
    others = peers(network, REPOSITORY / "gpt2-124m-ctranslate2", THREADS)
    with served(gpt2_package(network)) as ours:
        figures = [f for rows, target in TARGETS.items() for f in drawing(TITLE, ours, others, rows, target)]
        figures += scoring(ours, others)
    rounded = rounded_peers(network, REPOSITORY / "gpt2-124m-ctranslate2", THREADS)
    with served(gpt2_package(network, "gpt2-124m-int8-64", quantization=Quantization(8))) as ours:
        for rows, target in ROUNDED_TARGETS.items():
            figures += drawing(ROUNDED, ours, rounded, rows, target)
    return figures


def drawing(title: str, ours: Served, others: Mapping[str, Peer], rows: int, target: float) -> list[Figure]:
    """Tokens per second with ``rows`` sequences at a time."""
    tokens = with_begin(ours, rows, GIVEN)
    work: dict[str, Work] = {"ours": lambda: ours.generate(tokens[:, 1:], NEW)}
    for name, peer in others.items():
        work[name] = lambda peer=peer: peer.generate(tokens, NEW)  # type: ignore[misc]
    targets = {"ctranslate2": target}
    return _figures(title, f"sampling, {rows} at once", interleaved(work), rows * NEW, targets)


def scoring(ours: Served, others: Mapping[str, Peer]) -> list[Figure]:
    """Tokens per second of exact log-likelihoods."""
    tokens = with_begin(ours, SCORED_ROWS, SCORED)
    work: dict[str, Work] = {"ours": lambda: ours.score(tokens[:, 1:])}
    for name, peer in others.items():
        work[name] = lambda peer=peer: peer.score(tokens)  # type: ignore[misc]
    return _figures(TITLE, "scoring", interleaved(work), tokens[:, 1:].size, SCORING)


def interleaved(work: Mapping[str, Work]) -> dict[str, NDArray[np.float64]]:
    """Seconds of each, by round, after one round that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS + 1):
        for name, call in work.items():
            begun = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - begun)
    return {name: np.array(seconds[1:]) for name, seconds in taken.items()}


def _figures(
    title: str,
    name: str,
    taken: dict[str, NDArray[np.float64]],
    tokens: int,
    targets: Mapping[str, float],
) -> list[Figure]:
    ours = taken.pop("ours")
    rate = float(np.median(tokens / ours))
    figures = [Figure(title, f"{name}: ours", rate, unit="tokens/s", note=NOTE)]
    for peer, seconds in taken.items():
        ratio, target = float(np.median(seconds / ours)), targets.get(peer)
        figures.append(Figure(title, f"{name}: over {peer}", ratio, target, "at least", "x", NOTE))
    for peer in targets.keys() - taken.keys():
        note = f"{peer} is not installed here, so nothing is compared with it."
        figures.append(Figure(title, f"{name}: {peer} absent", float("nan"), note=note))
    return figures


def with_begin(ours: Served, rows: int, symbols: int) -> Ids:
    """Random rows [rows, 1 + symbols] that start with the begin token."""
    section = ours.model.spec.autoregressive
    assert section is not None
    assert section.begin_symbol is not None
    tokens = np.random.default_rng(rows).integers(0, section.vocabulary - 1, (rows, 1 + symbols))
    tokens[:, 0] = section.begin_symbol
    return tokens


def greedy(ours: Served, tokens: Ids, new: int) -> Ids:
    """The likeliest continuation of rows that start with the begin token, [rows, new]."""
    found = []
    for result in ours.generate(tokens[:, 1:], new, temperature=0.0, top_k=0):
        assert isinstance(result, Sampled)
        found.append(result.data[0, tokens.shape[1] - 1 :])
    return np.array(found, np.int64)
