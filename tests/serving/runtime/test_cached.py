from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from serving.runtime.cached import CachedDecoder
from tests.serving.families.autoregressive.gqa import Toy

LENGTH, SYMBOLS, SLOTS = 48, 17, 6


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy.make(SYMBOLS, LENGTH)


@pytest.fixture
def decoder(toy: Toy, tmp_path: Path) -> CachedDecoder:
    return toy.open(tmp_path, SLOTS)


def rows_of_tokens(rows: int) -> torch.Tensor:
    tokens = np.random.default_rng(1).integers(0, SYMBOLS, (rows, LENGTH))
    tokens[:, 0] = SYMBOLS
    return torch.from_numpy(tokens)


def test_decoding_token_by_token_agrees_with_the_scorer(toy: Toy, decoder: CachedDecoder) -> None:
    tokens = rows_of_tokens(SLOTS)
    truth = toy.scorer({"tokens": tokens})["logits"]
    for i in range(LENGTH):
        logits = decoder.decode(0, tokens[:, i], torch.full((SLOTS,), i))
        torch.testing.assert_close(logits, truth[:, i], atol=3e-5, rtol=0)


def test_prefill_in_chunks_agrees_with_the_scorer(toy: Toy, decoder: CachedDecoder) -> None:
    tokens = rows_of_tokens(1)
    truth = toy.scorer({"tokens": tokens})["logits"][0]
    for start, until in ((0, 20), (20, 33), (33, 40)):
        logits = decoder.prefill(4, tokens[0, start:until], start)
        torch.testing.assert_close(logits, truth[until - 1], atol=3e-5, rtol=0)
    logits = decoder.decode(4, tokens[:, 40], torch.tensor([40]))
    torch.testing.assert_close(logits[0], truth[40], atol=3e-5, rtol=0)


def test_a_row_is_bitwise_the_same_in_any_slot_beside_rows_of_other_lengths(decoder: CachedDecoder) -> None:
    tokens = rows_of_tokens(SLOTS)
    alone = [decoder.decode(3, tokens[:1, i], torch.tensor([i])).clone()[0] for i in range(20)]
    for slot in range(1, SLOTS):
        decoder.prefill(slot, tokens[slot, : 7 * slot], 0)
    ahead = torch.arange(SLOTS) * 7
    for i in range(20):
        past = (ahead + i).clamp_max(LENGTH - 1)
        past[0] = i
        fed = tokens[torch.arange(SLOTS), past]
        fed[0] = tokens[0, i]
        logits = decoder.decode(0, fed, past)
        assert torch.equal(logits[0], alone[i])


def test_an_inert_slot_keeps_its_prefix(toy: Toy, decoder: CachedDecoder) -> None:
    tokens = rows_of_tokens(3)
    truth = toy.scorer({"tokens": tokens})["logits"]
    decoder.prefill(1, tokens[1, :10], 0)
    for i in range(5):
        decoder.decode(0, torch.tensor([int(tokens[0, i]), 0, int(tokens[2, i])]), torch.tensor([i, 10, i]))
    logits = decoder.decode(1, tokens[1:2, 10], torch.tensor([10]))
    torch.testing.assert_close(logits[0], truth[1, 10], atol=3e-5, rtol=0)


def test_caches_are_allocated_once(decoder: CachedDecoder) -> None:
    before = [buffer.data_ptr() for buffer in decoder._cache.values()]
    tokens = rows_of_tokens(SLOTS)
    for i in range(5):
        decoder.decode(0, tokens[:, i], torch.full((SLOTS,), i))
    assert [buffer.data_ptr() for buffer in decoder._cache.values()] == before
    assert all(buffer[:, :, :5].abs().sum() > 0 for buffer in decoder._cache.values())


def test_tokens_beyond_the_cache_are_refused(decoder: CachedDecoder) -> None:
    with pytest.raises(ValueError, match="at most"):
        decoder.prefill(0, torch.zeros(LENGTH + 1, dtype=torch.int64), 0)
