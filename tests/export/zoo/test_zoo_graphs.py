from __future__ import annotations

import hashlib
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from export.graph.cached_decoder import build_cached_decoder
from export.graph.onnx import to_bytes
from export.package.digest import sha256_file
from export.zoo.graphs import committed, load_network, read_committed
from export.zoo.networks.cached import describe
from export.zoo.networks.transformer import CausalTransformer
from export.zoo.registry import ENTRIES, HERE
from export.zoo.trusted import TORCHSCRIPT_SHA256

ROWS = 5
FILES = sorted(path for folder in ("graphs", "weights") for path in (HERE / folder).rglob("*.*"))
GRAPHS = [path for path in FILES if path.suffix in (".xz", ".pt")]


def contents(path: Path) -> bytes:
    if path.suffix != ".pt":
        return read_committed(path)
    with zipfile.ZipFile(path) as archive:
        return b"".join(name.encode() + archive.read(name) for name in archive.namelist())


def session(graph: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", ENTRIES)
def test_graphs_hold_the_committed_weights(name: str) -> None:
    entry = ENTRIES[name]
    source = json.loads((entry.graphs / "source.json").read_text(encoding="utf-8"))
    assert source["weights_sha256"] == sha256_file(entry.weights)
    for part in (part for part in entry.parts if entry.parts[part].kind != "cached"):
        assert committed(entry, part).exists()


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_graph_holds_nothing_of_the_machine_that_wrote_it(path: Path) -> None:
    data = contents(path)
    assert b"site-packages" not in data
    assert b"Traceback" not in data
    assert not re.search(rb"/(?:home|root|usr|tmp|opt|work|Users)/[\w.]", data)
    assert not re.search(rb"\.py(?:\"|'|:| line|, line)", data)


def test_files_stay_small() -> None:
    assert max(path.stat().st_size for path in FILES) <= 3_000_000
    assert sum(path.stat().st_size for path in FILES) <= 25_000_000


def test_torchscript_of_the_zoo_is_listed_as_trusted() -> None:
    found = {hashlib.sha256(path.read_bytes()).hexdigest() for path in GRAPHS if path.suffix == ".pt"}
    assert found
    assert found == TORCHSCRIPT_SHA256


@pytest.mark.parametrize("name", ["digits-autoregressive", "text-autoregressive"])
def test_decoder_continues_a_prefilled_cache_as_the_scorer_scores(name: str) -> None:
    entry = ENTRIES[name]
    network = load_network(entry)
    assert isinstance(network, CausalTransformer)
    shape = network.shape
    decoder = session(to_bytes(build_cached_decoder(describe(network))))
    tokens = np.random.default_rng(0).integers(0, shape.vocabulary, (1, 30))
    wanted = session(read_committed(committed(entry, "scorer"))).run(None, {"tokens": tokens})[0]
    size = (1, shape.heads, shape.max_length, shape.head_dim)
    cache = {i.name: np.zeros(size, np.float32) for i in decoder.get_inputs() if i.name.startswith("past")}
    found = []
    for start, end in ((0, 11), (11, 29), (29, 30)):
        lengths = {
            "seqlens_k": np.array([end - 1], np.int32),
            "total_sequence_length": np.array(end, np.int32),
        }
        logits, *present = decoder.run(None, {"tokens": tokens[:, start:end], **lengths, **cache})
        cache = dict(zip(cache, present, strict=True))
        found.append(logits)
    assert np.abs(np.concatenate(found, axis=1) - wanted).max() < 1e-5


def test_rows_of_different_lengths_decode_as_they_do_alone() -> None:
    network = load_network(ENTRIES["digits-autoregressive"])
    assert isinstance(network, CausalTransformer)
    decoder = session(to_bytes(build_cached_decoder(describe(network))))
    shape = network.shape
    size = (ROWS, shape.heads, shape.max_length, shape.head_dim)
    rng = np.random.default_rng(1)
    cache = {
        i.name: rng.normal(size=size).astype(np.float32)
        for i in decoder.get_inputs()
        if i.name.startswith("past")
    }
    tokens, last = rng.integers(0, 17, (ROWS, 1)), np.array([0, 5, 63, 9, 31], np.int32)

    def run(rows: slice) -> np.ndarray:
        lengths = {"seqlens_k": last[rows], "total_sequence_length": np.array(last[rows].max() + 1, np.int32)}
        past = {name: value[rows].copy() for name, value in cache.items()}
        logits: np.ndarray = decoder.run(["logits"], {"tokens": tokens[rows], **lengths, **past})[0]
        return logits

    together = run(slice(0, ROWS))
    alone = np.concatenate([run(slice(i, i + 1)) for i in range(ROWS)])
    np.testing.assert_array_equal(together, alone)
