"""Dashboards are what their description says, well formed, and name only what exists."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from deploy.grafana.__main__ import DASHBOARDS as DESCRIBED
from deploy.grafana.__main__ import FOLDER, text
from serving.telemetry.table import TABLE
from tests.deploy.queries import SUFFIX, dashboards, grouped, named, panels, rules

TARGET_LABELS = {"job", "instance", "namespace"}
UNITS = {
    "s", "percent", "percentunit", "reqps", "ops", "none", "bytes", "Bps", "hertz", "celsius", "watt",
    "joule",
}  # fmt: skip
# Facts for people who look with their own eyes; everything else is on a dashboard or in a rule.
NOT_SHOWN = {"pxserve_build_info", "pxserve_models_ready"}

RECORDING = (Path(__file__).parent / "dcgm_exporter.txt").read_text()


def known() -> dict[str, set[str]]:
    """Labels of every metric that can be asked for."""
    found = {metric.name: set(metric.labels) for metric in TABLE}
    found |= {rule.name: {"model"} for rule in rules() if rule.alert is None}
    for name, labels in re.findall(r"^(DCGM_\w+)\{(.*)\}", RECORDING, re.M):
        found[name] = set(re.findall(r"(\w+)=", labels))
    for prefix in ("", "pxserve_engine_"):
        for name in (
            "cpu_seconds_total",
            "resident_memory_bytes",
            "start_time_seconds",
            "open_fds",
            "max_fds",
        ):
            found[f"{prefix}process_{name}"] = set()
    return found | {"up": set()}


def expressions() -> list[tuple[str, str]]:
    """Every query with where it stands."""
    found = [(rule.name, rule.expr) for rule in rules()]
    for dashboard, panel in panels():
        found += [(f"{dashboard['title']}: {panel['title']}", target["expr"]) for target in panel["targets"]]
    return found


@pytest.mark.parametrize("described", DESCRIBED, ids=lambda described: described.uid)
def test_the_files_are_what_the_description_says(described: Any) -> None:
    path = FOLDER / f"{described.uid}.json"
    assert path.read_text(encoding="utf-8") == text(described), "run `python -m deploy.grafana`"


def test_there_is_a_file_for_each_dashboard_and_no_other() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {described.uid for described in DESCRIBED}
    titles = Counter(dashboard["title"] for dashboard in dashboards())
    assert set(titles.values()) == {1}


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda dashboard: dashboard["uid"])
def test_a_dashboard_is_well_formed(dashboard: dict[str, Any]) -> None:
    assert dashboard["schemaVersion"] == 39
    assert re.fullmatch(r"[a-z-]{1,40}", dashboard["uid"])
    assert len(dashboard["description"]) > 30
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    names = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert names[0] == "datasource"
    assert len(names) == len(set(names))
    used = set(re.findall(r"\$(\w+)", str(dashboard["panels"]))) - {"__rate_interval"}
    assert used <= set(names)
    assert set(names) <= used | {"datasource"} | set(re.findall(r"\$(\w+)", str(dashboard["templating"])))


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda dashboard: dashboard["uid"])
def test_panels_do_not_overlap_and_fit_the_grid(dashboard: dict[str, Any]) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]


@pytest.mark.parametrize(
    ("dashboard", "panel"), list(panels()), ids=lambda part: part.get("uid") or part.get("title")
)
def test_a_panel_says_what_to_look_for_and_has_a_unit(
    dashboard: dict[str, Any], panel: dict[str, Any]
) -> None:
    assert panel["type"] in ("timeseries", "stat", "heatmap", "bargauge")
    assert len(panel["description"]) > 20
    assert panel["description"].endswith((".", "?"))
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    references = [target["refId"] for target in panel["targets"]]
    assert references == sorted(set(references))
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        assert target["instant"] != target["range"]
        assert panel["type"] == "stat" or target["legendFormat"] != "__auto"


@pytest.mark.parametrize(("where", "expr"), expressions(), ids=lambda part: part[:40])
def test_a_query_names_only_metrics_and_labels_that_exist(where: str, expr: str) -> None:
    metrics = known()
    names = list(named(expr))
    assert names
    labels: set[str] = set()
    for name, matched in names:
        base = name if name in metrics else SUFFIX.sub("", name)
        assert base in metrics, f"{where}: no metric {name}"
        own = metrics[base] | TARGET_LABELS | ({"le"} if name.endswith("_bucket") else set())
        assert matched <= own, f"{where}: {name} has no label {matched - own}"
        labels |= own
    assert grouped(expr) <= labels, f"{where}: {grouped(expr) - labels}"


def test_a_histogram_is_asked_for_its_parts_and_no_other_metric_is() -> None:
    kinds = {metric.name: metric.kind for metric in TABLE}
    for where, expr in expressions():
        for name, _ in named(expr):
            base = SUFFIX.sub("", name)
            if base != name and base in kinds:
                assert kinds[base] in ("histogram", "summary"), f"{where}: {name}"
            elif name in kinds:
                assert kinds[name] in ("counter", "gauge"), f"{where}: {name}"


def test_counters_are_never_shown_without_a_rate() -> None:
    counters = {metric.name for metric in TABLE if metric.kind == "counter"}
    counters |= {f"{metric.name}_{part}" for metric in TABLE for part in ("sum", "count", "bucket")}
    for where, expr in expressions():
        for name in counters & {name for name, _ in named(expr)}:
            uses = re.findall(rf"(\w*)\(?{name}\b", expr)
            assert set(uses) <= {"rate", "increase"}, f"{where}: {name}"


def test_every_metric_is_looked_at_somewhere() -> None:
    looked_at = {SUFFIX.sub("", name) for _, expr in expressions() for name, _ in named(expr)}
    assert {metric.name for metric in TABLE} - looked_at == NOT_SHOWN


def test_the_overview_has_a_panel_for_every_cause_of_latency() -> None:
    overview = next(described for described in DESCRIBED if described.uid == "pxserve-overview")
    asked = {
        SUFFIX.sub("", name)
        for row in overview.rows
        if row.title.startswith("Why did latency rise?")
        for panel in row.panels
        for query in panel.queries
        for name, _ in named(query.expr)
    }
    assert {
        "pxserve_request_phase_seconds",
        "pxserve_queue_seconds",
        "pxserve_batch_rows",
        "pxserve_step_seconds",
        "pxserve_step_interval_seconds",
        "pxserve_network_evaluations_total",
        "pxserve_wasted_device_seconds_total",
        "pxserve_rejections_total",
        "process_cpu_seconds_total",
        "pxserve_event_loop_lag_seconds",
        "pxserve_cpu_wait_seconds_total",
    } <= asked
