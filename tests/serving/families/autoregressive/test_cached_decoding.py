"""Rows over a real cached graph, beside each other and alone, against the scorer."""

from __future__ import annotations

import sys
from types import FrameType

import numpy as np
import pytest
import torch

from export.package.schema import Component, DataSpace, ModelSpec, Parity, TensorSpec
from serving.families.autoregressive.decoding import Continuation
from serving.families.autoregressive.family import AutoregressiveFamily
from serving.families.autoregressive.sampling import TABLE, continuation
from serving.families.autoregressive.slotted import CachedTable
from serving.families.drive import Network, run_alone
from serving.families.request import Operation, Request
from serving.families.result import Decoded, Encoded, Result, Sampled, Scored
from serving.families.rows import Loop, Tensors
from serving.runtime.cached import CachedDecoder
from tests.serving.families.autoregressive.gqa import Toy

LENGTH, SYMBOLS, SLOTS = 160, 12, 8
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy.make(SYMBOLS, LENGTH)


@pytest.fixture(scope="module")
def decoder(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> CachedDecoder:
    return toy.open(tmp_path_factory.mktemp("toy"), SLOTS)


@pytest.fixture(scope="module")
def family(toy: Toy) -> AutoregressiveFamily:
    tokens = TensorSpec(name="tokens", dtype="int64", shape=("rows", "length"))
    logits = TensorSpec(name="logits", dtype="float32", shape=("rows", "length", SYMBOLS))
    scorer = Component(format="onnx", file="s.onnx", inputs=(tokens,), outputs=(logits,))
    spec = ModelSpec(
        format_version=1,
        name="toy",
        family="autoregressive",
        description="one layer",
        license="Apache-2.0",
        data=DataSpace(kind="vector", axes=("time",), shape=(LENGTH,), dtype="int32", levels=SYMBOLS),
        components={"scorer": scorer, "decoder": scorer},
        autoregressive=toy.section,
        parity=Parity(max_abs_error=0.0, max_rel_error=0.0, inputs="none"),
        files={"s.onnx": "0" * 64},
    )
    return AutoregressiveFamily(spec)


@pytest.fixture
def table(family: AutoregressiveFamily, decoder: CachedDecoder) -> CachedTable:
    table = family.tables({"decoder": decoder}, SLOTS, CPU)[TABLE]
    assert isinstance(table, CachedTable)
    return table


def ask(family: AutoregressiveFamily, toy: Toy, table: CachedTable, request: Request) -> Result:
    networks: dict[str, Network] = {"scorer": toy.scorer}
    return run_alone(family.program(request), networks, {TABLE: table})


def sample(rows: int, seed: int, first_row: int = 0, prompt: int = 0) -> Request:
    data = None
    if prompt:
        data = np.random.default_rng(seed).integers(0, SYMBOLS, (1, prompt)).repeat(rows, 0)
    return Request(Operation.SAMPLE, "ancestral", {}, seed, first_row, rows, data=data)


def test_log_prob_of_the_cache_path_equals_the_scorer(
    family: AutoregressiveFamily, toy: Toy, table: CachedTable
) -> None:
    drawn = ask(family, toy, table, sample(3, 1))
    assert isinstance(drawn, Sampled)
    scored = ask(family, toy, table, Request(Operation.LIKELIHOOD, "exact", {}, 0, 0, 3, data=drawn.data))
    assert isinstance(scored, Scored)
    assert drawn.log_prob is not None
    np.testing.assert_allclose(drawn.log_prob, scored.log_prob, atol=2e-4)


def test_a_prompt_longer_than_a_chunk_is_read_in_chunks(
    family: AutoregressiveFamily, toy: Toy, table: CachedTable
) -> None:
    request = sample(2, 5, prompt=150)
    drawn = ask(family, toy, table, request)
    assert isinstance(drawn, Sampled)
    assert request.data is not None
    assert (drawn.data[:, :150] == request.data).all()
    both = [
        ask(family, toy, table, Request(Operation.LIKELIHOOD, "exact", {}, 0, 0, 2, data=data))
        for data in (drawn.data, np.where(np.arange(LENGTH) < 150, drawn.data, 0))
    ]
    prefix = np.zeros((2, LENGTH), np.bool_)
    prefix[:, :150] = True
    marginal = Request(Operation.LIKELIHOOD, "exact", {}, 0, 0, 2, data=drawn.data, observed=prefix)
    whole, start = both[0], ask(family, toy, table, marginal)
    assert isinstance(whole, Scored)
    assert isinstance(start, Scored)
    assert drawn.log_prob is not None
    np.testing.assert_allclose(drawn.log_prob, whole.log_prob - start.log_prob, atol=1e-4)


def test_rows_are_bitwise_the_same_alone_and_staggered_beside_others(
    family: AutoregressiveFamily, toy: Toy, table: CachedTable, decoder: CachedDecoder
) -> None:
    requests = [sample(2, 1), sample(1, 2, prompt=70), sample(3, 3, first_row=4), sample(1, 4, prompt=3)]
    alone = [ask(family, toy, table, request) for request in requests]
    shared = CachedTable(family.alphabet, decoder, SLOTS, CPU)
    states = staggered(family, shared, requests)
    for result, state in zip(alone, states, strict=True):
        assert isinstance(result, Sampled)
        assert (state["symbols"].numpy() == result.data).all()
        assert result.log_prob is not None
        assert (state["log_prob"].numpy() == result.log_prob).all()


def staggered(family: AutoregressiveFamily, table: CachedTable, requests: list[Request]) -> list[Tensors]:
    """Admit one request every 11 ticks into scattered slots; prefill chunks between decode runs."""
    slots = [np.array([6, 2]), np.array([4]), np.array([0, 3, 7]), np.array([5])]
    waiting = list(zip(slots, requests, strict=True))
    for tick in range(400):
        if tick % 11 == 0 and waiting:
            where, request = waiting.pop(0)
            work = continuation(family.alphabet, request)
            table.admit(where, Loop(TABLE, request.rows, work, work.steps))
        pending = table.pending_prefill()
        if len(pending):
            table.prefill(int(pending[0]))
        admitted = np.sort(np.concatenate(slots[: 4 - len(waiting)]))
        running = admitted[table.remaining(admitted) > 0]
        running = np.setdiff1d(running, table.pending_prefill())
        if len(running):
            table.decode(running)
    return [table.result(where) for where in slots]


def test_a_slot_is_clean_after_release(family: AutoregressiveFamily, toy: Toy, table: CachedTable) -> None:
    first = ask(family, toy, table, sample(SLOTS, 9))
    again = ask(family, toy, table, sample(SLOTS, 9))
    assert isinstance(first, Sampled)
    assert isinstance(again, Sampled)
    assert (first.data == again.data).all()


def test_rows_beyond_the_slots_take_turns(family: AutoregressiveFamily, toy: Toy, table: CachedTable) -> None:
    many = ask(family, toy, table, sample(SLOTS + 3, 9))
    few = ask(family, toy, table, sample(2, 9, first_row=SLOTS))
    assert isinstance(many, Sampled)
    assert isinstance(few, Sampled)
    assert (many.data[SLOTS : SLOTS + 2] == few.data).all()


def test_encode_by_the_scorer_decodes_over_the_cache(
    family: AutoregressiveFamily, toy: Toy, table: CachedTable
) -> None:
    data = np.random.default_rng(3).integers(0, SYMBOLS, (4, LENGTH)).astype(np.int32)
    method = "probability_integral_transform"
    latents = ask(family, toy, table, Request(Operation.ENCODE, method, {}, 0, 0, 4, data=data))
    assert isinstance(latents, Encoded)
    decoded = ask(family, toy, table, Request(Operation.DECODE, method, {}, 0, 0, 4, latents=latents.latents))
    assert isinstance(decoded, Decoded)
    assert (decoded.data == data).all()


def test_a_row_with_non_finite_logits_is_named_and_harms_no_other(family: AutoregressiveFamily) -> None:
    class Spoiled:
        slots, max_length = 4, LENGTH

        def prefill(self, slot: int, tokens: torch.Tensor, past: int) -> torch.Tensor:
            raise AssertionError

        def decode(self, first: int, tokens: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros(len(tokens), SYMBOLS)
            logits[2 - first] = torch.nan
            return logits

    table = CachedTable(family.alphabet, Spoiled(), 4, CPU)
    work = continuation(family.alphabet, sample(3, 1))
    table.admit(np.array([1, 2, 3]), Loop(TABLE, 3, work, work.steps))
    assert table.decode(np.array([1, 2, 3])).tolist() == [False, True, False]
    assert table.rows.length[1:].tolist() == [1, 0, 1]


def test_python_calls_of_a_tick_in_the_family_do_not_depend_on_its_rows(family: AutoregressiveFamily) -> None:
    few, many = (calls_of_a_tick(family, rows) for rows in (2, 64))
    assert few == many


def calls_of_a_tick(family: AutoregressiveFamily, rows: int) -> int:
    class Flat:
        slots, max_length = 64, LENGTH

        def prefill(self, slot: int, tokens: torch.Tensor, past: int) -> torch.Tensor:
            raise AssertionError

        def decode(self, first: int, tokens: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(tokens), SYMBOLS)

    table, slots = CachedTable(family.alphabet, Flat(), 64, CPU), np.arange(rows)
    none = np.zeros(rows, np.int64)
    work = Continuation(none, np.zeros((rows, LENGTH), np.int64), none, none + LENGTH, slots)
    table.admit(slots, Loop(TABLE, rows, work, work.steps))
    table.decode(slots)
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call" and "families" in frame.f_code.co_filename

    sys.setprofile(count)
    try:
        table.decode(slots)
    finally:
        sys.setprofile(None)
    return calls
