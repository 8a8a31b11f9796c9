from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from export.cli import main
from export.package.read import Package, read_package
from serving.families.request import Operation, Request, Value
from serving.families.result import Sampled, Scored
from tests.benchmarks.gpt2 import Served, served
from tests.export.transformers.folders import BEGIN, COLORS, END, LENGTH, TINY, VOCABULARY, folder, network

TEXTS = [name for name in TINY if name != "imagegpt"]
GREEDY: dict[str, Value] = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "max_new_tokens": 9}
GIVEN = (1, 2, 15, 16, 17, 63, 64, 65)  # around the borders of prefill chunks, and of different lengths


def exported(name: str, to: Path, *flags: str) -> Package:
    """The package of a tiny folder."""
    source = folder(name, to / "folders")
    assert main(["transformers", str(source), "--to", str(to / "models"), *flags]) == 0
    return read_package(to / "models" / name / "1")


def request(operation: Operation, method: str, row: np.ndarray, parameters: dict[str, Value]) -> Request:
    lengths = np.array([len(row)], np.int32)
    return Request(operation, method, parameters, 0, 0, 1, data=row[None].astype(np.int32), lengths=lengths)


def rows(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCABULARY, length) for length in GIVEN]


@pytest.fixture(scope="module", params=TEXTS)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Served]]:
    package = exported(request.param, tmp_path_factory.mktemp("families"))
    with served(package.folder) as running:
        yield request.param, running


def test_greedy_tokens_are_those_of_generate(model: tuple[str, Served]) -> None:
    name, ours = model
    theirs = network(name)
    prompts = rows(0)
    found = ours.results([request(Operation.SAMPLE, "ancestral", row, GREEDY) for row in prompts])
    for row, result in zip(prompts, found, strict=True):
        assert isinstance(result, Sampled)
        assert result.lengths is not None
        ids = torch.tensor([[BEGIN, *row]])
        wanted = theirs.generate(
            ids, max_length=min(LENGTH + 1, len(row) + 10), do_sample=False, eos_token_id=END, pad_token_id=0
        )[0, 1:].tolist()
        wanted = wanted[:-1] if wanted[-1] == END else wanted
        assert result.data[0, : result.lengths[0]].tolist() == wanted


def test_likelihoods_are_those_of_the_source(model: tuple[str, Served]) -> None:
    name, ours = model
    theirs = network(name)
    parameters: dict[str, Value] = {"per_dimension": True}
    found = ours.results([request(Operation.LIKELIHOOD, "exact", row, parameters) for row in rows(1)])
    for row, result in zip(rows(1), found, strict=True):
        assert isinstance(result, Scored)
        with torch.no_grad():
            logits = theirs(torch.tensor([[BEGIN, *row[:-1]]])).logits.double()
        wanted = torch.log_softmax(logits, dim=-1)[0, torch.arange(len(row)), torch.from_numpy(row)]
        assert result.log_prob_map is not None
        np.testing.assert_allclose(result.log_prob_map[0], wanted.numpy(), atol=1e-4)
        assert abs(float(result.log_prob[0]) - float(wanted.sum())) <= 1e-4 * len(row)


def test_rows_have_the_same_bits_alone_and_together(model: tuple[str, Served]) -> None:
    _, ours = model
    drawing: dict[str, Value] = {**GREEDY, "temperature": 0.9, "top_k": 20}
    asked = [request(Operation.SAMPLE, "ancestral", row, drawing) for row in rows(2)]
    asked += [request(Operation.LIKELIHOOD, "exact", row, {}) for row in rows(3)]
    together = ours.results(asked)
    alone = [ours.results([one])[0] for one in asked]
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Sampled | Scored)
        assert isinstance(other, Sampled | Scored)
        assert one.log_prob is not None
        assert other.log_prob is not None
        assert one.log_prob.tobytes() == other.log_prob.tobytes()
        if isinstance(one, Sampled) and isinstance(other, Sampled):
            assert one.data.tobytes() == other.data.tobytes()


def test_imagegpt_scores_and_draws_as_its_source(tmp_path: Path) -> None:
    package = exported("imagegpt", tmp_path)
    assert package.spec.data.kind == "image"
    assert package.spec.data.shape == (8, 8)
    theirs = network("imagegpt")
    picture = np.random.default_rng(0).integers(0, COLORS, (1, 8, 8)).astype(np.int32)
    asked = Request(Operation.LIKELIHOOD, "exact", {"per_dimension": True}, 0, 0, 1, data=picture)
    greedy = Request(
        Operation.SAMPLE, "ancestral", {k: v for k, v in GREEDY.items() if k != "max_new_tokens"}, 0, 0, 1
    )
    with served(package.folder) as ours:
        scored, drawn = ours.results([asked, greedy])
    ids = torch.tensor([[COLORS, *picture.reshape(-1)]])
    with torch.no_grad():
        law = torch.log_softmax(theirs(ids[:, :-1]).logits.double(), dim=-1)[0]
        row = [COLORS]
        for _ in range(64):
            row.append(int(theirs(torch.tensor([row])).logits[0, -1].argmax()))
    assert isinstance(scored, Scored)
    assert isinstance(drawn, Sampled)
    wanted = law[torch.arange(64), ids[0, 1:]].numpy().reshape(8, 8)
    assert scored.log_prob_map is not None
    np.testing.assert_allclose(scored.log_prob_map[0], wanted, atol=1e-4)
    assert drawn.data.reshape(-1).tolist() == row[1:]


@pytest.mark.parametrize("graph", ["int8", "int4", "float16"])
def test_rounded_graphs_record_their_error_and_keep_rows_apart(graph: str, tmp_path: Path) -> None:
    flag = "--precision" if graph == "float16" else "--weights"
    package = exported("llama", tmp_path, flag, graph)
    parity = package.spec.parity
    assert parity.log_prob_error is not None
    assert 0 < parity.log_prob_error < {"int8": 0.1, "int4": 1.0, "float16": 0.02}[graph]
    asked = [request(Operation.SAMPLE, "ancestral", row, GREEDY) for row in rows(2)]
    asked += [request(Operation.LIKELIHOOD, "exact", row, {}) for row in rows(3)]
    with served(package.folder) as ours:
        together = ours.results(asked)
        alone = [ours.results([one])[0] for one in asked]
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Sampled | Scored)
        assert isinstance(other, Sampled | Scored)
        assert one.log_prob is not None
        assert other.log_prob is not None
        assert one.log_prob.tobytes() == other.log_prob.tobytes()


def test_weights_beside_the_graph_are_hashed_and_one_file(tmp_path: Path) -> None:
    package = exported("llama", tmp_path)
    assert set(package.spec.files) == {"decoder.onnx", "decoder.onnx.data"}
    assert (package.folder / "decoder.onnx").stat().st_size < 100_000
    assert main(["verify", str(package.folder)]) == 0


def test_bfloat16_weights_in_several_files_are_read(tmp_path: Path) -> None:
    made = network("llama").to(torch.bfloat16)
    made.save_pretrained(tmp_path / "sharded", max_shard_size="60KB")
    assert (tmp_path / "sharded" / "model.safetensors.index.json").is_file()
    flags = ["--license", "mit", "--precision", "float32", "--precision", "bfloat16"]
    assert main(["transformers", str(tmp_path / "sharded"), "--to", str(tmp_path / "m"), *flags]) == 0
    decoder = read_package(tmp_path / "m" / "sharded" / "1").spec.components["decoder"]
    assert [variant.precision for variant in decoder.variants] == ["bfloat16"]
    assert decoder.variants[0].device == "cuda"
    assert decoder.variants[0].parity is not None
    assert decoder.variants[0].parity.log_prob_error is not None
    assert decoder.variants[0].parity.log_prob_error < 1e-4  # the source's weights are bfloat16 already
