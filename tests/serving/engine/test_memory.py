"""Memory of rows is counted at admission, refused where there is none left, and free again at the end."""

from __future__ import annotations

import pytest

from serving.engine.batched_lane import BatchedLane
from serving.engine.ledger import Ledger, Place
from serving.engine.memory import check_memory, network_row_bytes
from serving.errors import ResourceExhausted
from tests.serving.engine.gaussian_engine import ELEMENTS, made, sample
from tests.serving.engine.toy import KEY, toy
from tests.serving.engine.toy import sample as toy_sample

MIB = 2**20


def holding(held_bytes: int) -> Ledger:
    ledger = Ledger()
    ledger.open(10, 1, 2.5, 0.0, 0, place=Place(0, 10, 1e9, held_bytes))
    return ledger


def test_what_fits_enters() -> None:
    check_memory(3 * MIB, holding(MIB), 4 * MIB)


def test_what_does_not_fit_beside_others_may_come_back_when_they_are_done() -> None:
    with pytest.raises(ResourceExhausted, match=r"others hold 2\.0 MiB of 4\.0 MiB") as caught:
        check_memory(3 * MIB, holding(2 * MIB), 4 * MIB)
    assert caught.value.reason == "MEMORY"
    assert caught.value.retry_after_s == pytest.approx(2.5)


def test_what_never_fits_is_told_so_and_not_to_come_back() -> None:
    with pytest.raises(ResourceExhausted, match="fewer rows") as caught:
        check_memory(5 * MIB, Ledger(), 4 * MIB)
    assert caught.value.retry_after_s is None


def test_a_network_row_holds_its_inputs_and_outputs_twice() -> None:
    it = made(BatchedLane)
    spec = it.engine._models[next(iter(it.engine._models))].loaded.spec
    floats = 2 * ELEMENTS + 1  # x, prediction, t
    assert network_row_bytes(spec, it.lane._network) == 2 * (4 * floats + 8)  # and a label


def test_guided_rows_and_particles_count_as_the_network_rows_that_they_are() -> None:
    it = made(BatchedLane)
    it.lane.row_bytes = 1000
    model = it.engine._models[next(iter(it.engine._models))]
    plain = it.engine._cost(model, sample("ddim", 3, 10)).held_bytes
    guided = it.engine._cost(model, sample("ddim", 3, 10, guidance_scale=2.0)).held_bytes
    assert (plain, guided) == (3000, 6000)


def test_requests_are_refused_while_memory_is_held_and_let_in_when_it_is_free() -> None:
    it = toy()
    it.lane.row_bytes = MIB
    it.engine._memory_bytes = 4 * MIB
    first = it.engine.submit(KEY, toy_sample(3, 5))
    with pytest.raises(ResourceExhausted) as caught:
        it.engine.submit(KEY, toy_sample(2, 5))
    assert caught.value.reason == "MEMORY"
    it.engine.start()
    first.result(20.0)
    it.engine.submit(KEY, toy_sample(4, 5)).result(20.0)
    assert it.engine._ledger.held_bytes == 0
    it.engine.stop()
