from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from serving.families.result import Scored
from tests.benchmarks import gpt2
from tests.benchmarks.gpt2_package import Scorer, gpt2_package, network_of
from tests.benchmarks.gpt2_peers import CTranslate2, Transformers
from tests.benchmarks.networks.decoder import Decoder, Size

TINY = Size(layers=2, heads=2, width=32, vocabulary=61, max_length=64)


def varied(size: Size | None, factor: float) -> Decoder:
    """Random weights whose likeliest continuation is not one token again and again."""
    network = network_of(size)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "c_" in name or "wpe" in name:
                parameter.mul_(factor)
    return network


@torch.no_grad()
def continued(network: Decoder, tokens: np.ndarray, new: int) -> np.ndarray:
    """Greedy continuation without any cache."""
    rows, scorer = torch.from_numpy(tokens), Scorer(network)
    for _ in range(new):
        rows = torch.cat((rows, scorer(rows)[:, -1].argmax(dim=-1, keepdim=True)), dim=1)
    return rows[:, tokens.shape[1] :].numpy()


def test_greedy_tokens_and_scores_equal_the_network_without_a_cache(tmp_path: Path) -> None:
    network = varied(TINY, 10.0)
    with gpt2.served(gpt2_package(network, "tiny", tmp_path)) as ours:
        tokens = gpt2.with_begin(ours, 3, 5)
        found, scored = gpt2.greedy(ours, tokens, 20), ours.score(tokens[:, 1:])
    wanted = continued(network, tokens, 20)
    assert len(np.unique(wanted)) > 5
    np.testing.assert_array_equal(found, wanted)
    with torch.no_grad():
        law = torch.log_softmax(Scorer(network)(torch.from_numpy(tokens)).double(), dim=-1)[:, :-1]
    terms = law.gather(2, torch.from_numpy(tokens)[:, 1:, None])[:, :, 0].sum(dim=1)
    sums = [one.log_prob[0] for one in scored if isinstance(one, Scored)]
    np.testing.assert_allclose(sums, terms, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(600)
def test_greedy_tokens_of_gpt2_124m_equal_those_of_transformers(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    network = varied(None, 4.0)
    with gpt2.served(gpt2_package(network, "varied", tmp_path)) as ours:
        tokens = gpt2.with_begin(ours, 3, 8)
        found = gpt2.greedy(ours, tokens, 32)
    wanted = Transformers(network).greedy(tokens, 32)
    assert len(np.unique(wanted)) > 10
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(600)
def test_ctranslate2_runs_the_same_network(tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    pytest.importorskip("transformers")
    network = varied(None, 4.0)
    tokens = np.random.default_rng(0).integers(0, 50_256, (2, 20))
    theirs = CTranslate2(network, tmp_path / "ctranslate2", threads=1).score(tokens)
    np.testing.assert_allclose(theirs, Transformers(network).score(tokens), atol=1e-3)
