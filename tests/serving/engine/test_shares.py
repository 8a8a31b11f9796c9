"""Shares get device seconds by weight while they compete, across models too; quotas hold what they say."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from serving.engine.admission import Bid, Cost, admit
from serving.engine.engine import Engine
from serving.engine.estimate import LEAST_MARGIN
from serving.engine.forecast import Pace
from serving.engine.ledger import Ledger, Place
from serving.engine.messages import Failed, Finished, ModelKey, Options, Quota
from serving.engine.shares import Shares
from serving.engine.ticket import Ticket
from serving.errors import ResourceExhausted
from tests.serving.engine.toy import KEY, Fault, Toy, sample, toy

WAIT_S = 20.0
OTHER = ModelKey("other", 1)
QUOTA = Quota(device_s=2.0, window_s=10.0)


class RunClock:
    """Time passes in network runs alone, so that shares of it do not depend on what else the machine does."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def run(self, x: torch.Tensor) -> None:
        self.now_s += 0.001
        time.sleep(0.0001)  # the test's thread has its turn, too


def used_s(*tickets: Ticket) -> list[float]:
    """Device seconds of requests that are ended now, all at once."""
    for ticket in tickets:
        ticket.cancel()
    ends = [list(ticket)[-1] for ticket in tickets]
    return [end.usage.device_seconds for end in ends if isinstance(end, Finished | Failed) and end.usage]


def refused(shares: Shares, index: int, now_s: float, owed_s: float = 0.0) -> float:
    """Seconds to come back after."""
    with pytest.raises(ResourceExhausted) as caught:
        shares.check_quota(index, QUOTA, owed_s, now_s)
    assert caught.value.reason == "QUOTA"
    assert caught.value.retry_after_s is not None
    return caught.value.retry_after_s


def test_a_quota_is_charged_as_measured_and_refills_evenly() -> None:
    shares = Shares()
    index = shares.join("a", 1.0, 1)
    shares.check_quota(index, QUOTA, 0.0, 100.0)
    shares.charge(np.array([1.5]))
    shares.check_quota(index, QUOTA, 0.0, 100.0)  # half a second is left
    shares.charge(np.array([1.5]))
    assert refused(shares, index, 100.0) == pytest.approx(1.0 / 0.2)  # a second of debt
    assert refused(shares, index, 104.0) == pytest.approx(0.2 / 0.2)
    shares.check_quota(index, QUOTA, 0.0, 105.1)
    shares.check_quota(index, QUOTA, 0.0, 1000.0)
    shares.charge(np.array([2.5]))
    assert refused(shares, index, 1000.0) == pytest.approx(0.5 / 0.2)  # no more than 2 s were ever saved


def test_what_is_admitted_and_not_done_counts_as_used() -> None:
    shares = Shares()
    index = shares.join("a", 1.0, 1)
    shares.check_quota(index, QUOTA, 1.9, 0.0)
    assert refused(shares, index, 0.0, owed_s=2.4) == pytest.approx(0.4 / 0.2)


def test_a_quota_that_is_changed_holds_from_then_on() -> None:
    shares = Shares()
    index = shares.join("a", 1.0, 1)
    shares.check_quota(index, QUOTA, 0.0, 0.0)
    shares.check_quota(index, Quota(0.5, 10.0), 0.4, 0.0)
    with pytest.raises(ResourceExhausted):
        shares.check_quota(index, Quota(0.5, 10.0), 0.6, 0.0)


def test_shares_of_unequal_weight_take_turns_in_proportion() -> None:
    ledger = Ledger(4)
    light = ledger.open(10**6, 1, 1.0, 0.0, 0, "light", share_weight=1.0)
    heavy = ledger.open(10**6, 1, 1.0, 0.0, 0, "heavy", share_weight=3.0)
    for _ in range(400):
        tasks = np.array([light, heavy])
        first = tasks[[int(np.argmin(ledger.keys(tasks, 0.0)))]]
        ledger.charge(first, np.array([1]), 0.01, 0.0)
        ledger.claim(first)
    spent = [ledger.usage(task, 0.0).device_seconds for task in (light, heavy)]
    assert spent[1] / spent[0] == pytest.approx(3.0, rel=0.05)


def test_weights_hold_in_the_engine() -> None:
    clock = RunClock()
    it = toy(engine=Engine(max_rows=2, clock=clock), max_rows=2, before=clock.run)
    light, heavy = (
        it.engine.submit(KEY, sample(8, 1000), Options(share=name, share_weight=weight))
        for name, weight in (("light", 1.0), ("heavy", 3.0))
    )
    it.engine.start()
    time.sleep(0.3)
    light_s, heavy_s = used_s(light, heavy)
    assert heavy_s / light_s == pytest.approx(3.0, rel=0.2)
    it.engine.stop()


def two_models(clock: RunClock | None = None) -> tuple[Toy, Toy]:
    before = clock.run if clock else Fault(delay_s=0.001)
    engine = Engine(max_rows=2, clock=clock or time.monotonic)
    first = toy(max_rows=2, before=before, engine=engine)
    second = toy(max_rows=2, before=before, key=OTHER, engine=engine)
    engine.start()
    return first, second


def test_who_asks_two_models_gets_no_more_than_who_asks_one() -> None:
    first, _ = two_models(RunClock())
    greedy = [first.engine.submit(key, sample(8, 1000), Options(share="greedy")) for key in (KEY, OTHER)]
    modest = first.engine.submit(KEY, sample(8, 1000), Options(share="modest"))
    time.sleep(0.3)
    modest_s, *greedy_s = used_s(modest, *greedy)
    assert sum(greedy_s) / modest_s == pytest.approx(1.0, rel=0.2)
    first.engine.stop()


def test_a_higher_priority_goes_first_in_another_model_too() -> None:
    first, _ = two_models()
    ordinary = first.engine.submit(KEY, sample(8, 1000))
    time.sleep(0.1)
    urgent = first.engine.submit(OTHER, sample(2, 50), Options(priority=5))
    before_s = time.monotonic()
    urgent.result(WAIT_S)
    # alone it takes 50 runs; in turns with the other model it would take twice as long
    taken_s, alone_s = time.monotonic() - before_s, urgent_alone_s(first)
    assert taken_s < 1.6 * alone_s
    ordinary.cancel()
    first.engine.stop()


def urgent_alone_s(it: Toy) -> float:
    begun_s = time.monotonic()
    it.engine.submit(OTHER, sample(2, 50), Options(priority=9)).result(WAIT_S)
    return time.monotonic() - begun_s


def test_a_long_queue_of_one_share_does_not_hold_up_another() -> None:
    it = toy(max_rows=4, capacity=4, before=Fault(delay_s=0.001))
    it.engine.start()
    queue = [it.engine.submit(KEY, sample(4, 40), Options(share="bulk")) for _ in range(12)]
    time.sleep(0.05)
    begun_s = time.monotonic()
    it.engine.submit(KEY, sample(4, 5), Options(share="interactive")).result(WAIT_S)
    waited_s = time.monotonic() - begun_s
    for ticket in queue:
        ticket.finished(WAIT_S)
    assert waited_s < 0.3 * (time.monotonic() - begun_s)
    it.engine.stop()


def test_an_engine_holds_a_share_to_its_quota_and_leaves_the_others_alone() -> None:
    it = toy(before=Fault(delay_s=0.002))
    it.engine.start()
    quota, begun_s, spent_s, reasons = Quota(0.04, 0.4), time.monotonic(), 0.0, set()
    while time.monotonic() < begun_s + 1.0:
        try:
            ticket = it.engine.submit(KEY, sample(1, 3), Options(share="bounded", quota=quota))
            spent_s += ticket.finished(WAIT_S).usage.device_seconds
        except ResourceExhausted as refusal:
            reasons.add(refusal.reason)
            time.sleep(0.002)
        it.engine.submit(KEY, sample(1, 1), Options(share="free")).result(WAIT_S)
    elapsed_s = time.monotonic() - begun_s
    assert reasons == {"QUOTA"}
    assert 0.5 * elapsed_s * 0.1 < spent_s < 0.04 + elapsed_s * 0.1 + 0.05  # and the last request's debt
    it.engine.stop()


def test_requests_that_come_at_once_do_not_slip_through_a_quota_together() -> None:
    it = toy(max_rows=2, before=Fault(delay_s=0.002))
    it.engine.start()
    it.engine.submit(KEY, sample(2, 20)).result(WAIT_S)  # the engine knows its step time now
    options, admitted = Options(share="a", quota=Quota(0.2, 1000.0)), 0
    tickets = []
    for _ in range(50):
        try:
            tickets.append(it.engine.submit(KEY, sample(2, 20), options))
            admitted += 1
        except ResourceExhausted:
            continue
    assert 2 <= admitted <= 12  # each takes about 0.05 s
    for ticket in tickets:
        ticket.finished(WAIT_S)
    it.engine.stop()


def test_a_full_queue_of_one_share_leaves_room_for_another_by_weight() -> None:
    it = toy(queue_rows=20)
    bulk, small = Options(share="bulk"), Options(share="small", share_weight=3.0)
    for _ in range(20):
        it.engine.submit(KEY, sample(1, 10), bulk)
    with pytest.raises(ResourceExhausted):
        it.engine.submit(KEY, sample(1, 10), bulk)
    for _ in range(15):
        it.engine.submit(KEY, sample(1, 10), small)
    with pytest.raises(ResourceExhausted) as caught:
        it.engine.submit(KEY, sample(1, 10), small)
    assert caught.value.reason == "QUEUE_FULL"
    it.engine.stop()


def test_deadlines_that_one_share_was_promised_do_not_shut_another_out() -> None:
    """The first has taken all the time there is until its deadlines; the other still gets its half of it."""
    pace = Pace(capacity=2, base_s=0.01, per_row_s=0.0)
    ledger = Ledger()
    for _ in range(4):
        ledger.open(100, 1, 0.5, 0.0, 0, "greedy", Place(0, 100, 2.2))
    cost = Cost(2, 200, 1.0, 1.0, 1.0, 0, 100, pace)
    with pytest.raises(ResourceExhausted):
        admit(cost, 2.5, ledger, 100, 0.0, Bid(0, "greedy"))
    assert admit(cost, 2.5, ledger, 100, 0.0, Bid(0, "modest")) == pytest.approx(2.0 * LEAST_MARGIN)
    with pytest.raises(ResourceExhausted):
        admit(cost, 1.9, ledger, 100, 0.0, Bid(0, "modest"))
    assert admit(cost, 1.5, ledger, 100, 0.0, Bid(0, "heavy", 3.0)) == pytest.approx(4.0 / 3.0 * LEAST_MARGIN)


def test_a_higher_priority_does_not_wait_for_lower_ones_of_other_shares() -> None:
    pace = Pace(capacity=2, base_s=0.01, per_row_s=0.0)
    ledger = Ledger()
    for _ in range(8):
        ledger.open(100, 1, 0.5, 0.0, 0, "bulk", Place(0, 100, 9.0))
    cost = Cost(2, 200, 1.0, 1.0, 1.0, 0, 100, pace)
    assert admit(cost, 1.2, ledger, 100, 0.0, Bid(1, "urgent")) == pytest.approx(1.0 * LEAST_MARGIN)
