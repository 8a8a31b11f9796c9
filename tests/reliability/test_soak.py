"""Half an hour of everything at once: memory, files and threads stay where they are."""

from __future__ import annotations

import time

import numpy as np
import pytest

from deploy.demo.server import Running
from tests.reliability.mixed_load import MixedLoad, sampled, slope_per_hour
from tests.reliability.observed import assert_empty, assert_no_leak, footprint, metric
from tests.reliability.record import Figure, Record

pytestmark = [pytest.mark.xdist_group("reliability"), pytest.mark.timeout(300)]

SOAK_S, SETTLE_S = 1800.0, 300.0
MEMORY_MIB = 200.0
SLOPE_MIB_PER_HOUR = 60.0


def test_some_seconds_of_everything_leaves_nothing(server: Running) -> None:
    warming = MixedLoad(server.target, callers=4, pause_s=0.01, reload_every_s=2.0)
    with warming.running():
        time.sleep(4.0)
    assert_empty(server)
    before = footprint(server)
    load = MixedLoad(server.target, callers=4, pause_s=0.01, reload_every_s=2.0)
    with load.running():
        time.sleep(4.0)
    assert not load.unexpected
    assert load.told["OK"] > 20
    assert_empty(server)
    assert_no_leak(server, before, MEMORY_MIB)


@pytest.mark.soak
@pytest.mark.timeout(2 * SOAK_S)
def test_half_an_hour_of_everything_grows_nothing(server: Running, record: Record) -> None:
    load = MixedLoad(server.target, callers=4, pause_s=0.1, reload_every_s=20.0)
    with load.running():
        time.sleep(SETTLE_S)
        before = footprint(server)
        memory = sampled(lambda: footprint(server).memory_mib, SOAK_S - SETTLE_S, 2.0)
    assert_empty(server)
    after = footprint(server)
    slope, error = slope_per_hour(memory)
    internal = metric(server, "pxserve_request_seconds_count", code="INTERNAL")
    record(
        "Soak: half an hour of everything at once",
        [
            Figure("requests", load.told.total()),
            Figure("answered OK", load.told["OK"]),
            Figure("answers that nobody should get", sum(load.unexpected.values()), "", 0, "at most"),
            Figure("INTERNAL, as the server counts", internal, "", 0, "at most"),
            Figure("memory, mean of the last 25 minutes", float(np.mean(memory[:, 1])), "MiB"),
            Figure("memory, slope over them", slope, "MiB/h", SLOPE_MIB_PER_HOUR, "at most"),
            Figure("standard error of the slope", error, "MiB/h"),
            Figure(
                "open files at the end minus after 5 minutes", after.files - before.files, "", 4, "at most"
            ),
            Figure(
                "threads at the end minus after 5 minutes", after.threads - before.threads, "", 4, "at most"
            ),
        ],
        "Nine models: samples, likelihoods, completions, anomaly scores, latents; cancelled streams, "
        "deadlines that cannot be met, wrong parameters; a model unloaded and loaded every 20 s. Slope by "
        "least squares over the last 25 minutes, its error from the means of twenty blocks. Told: "
        + ", ".join(f"{count} {reason}" for reason, count in load.told.most_common())
        + ".",
    )
