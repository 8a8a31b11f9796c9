"""The pages show the figures that the last runs left."""

from __future__ import annotations

import json

from tests.benchmarks import sizing
from tests.reliability import record


def test_the_page_of_reliability_shows_its_data() -> None:
    assert record.PAGE.read_text() == record.render(), "run `python -m tests.reliability.record`"


def test_the_runbook_shows_the_measured_sizes() -> None:
    shown = sizing.PAGE.read_text().partition(sizing.BEGIN)[2].partition(sizing.END)[0]
    assert shown.strip() == sizing.table(json.loads(sizing.DATA.read_text())).strip()
