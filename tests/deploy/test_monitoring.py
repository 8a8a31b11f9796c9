"""A real Prometheus scrapes a server at work: every panel's query and every rule gives numbers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deploy.demo.server import serving
from tests.deploy.load import MODELS, loaded
from tests.deploy.prometheus import ROOT, Prometheus, binary, running
from tests.deploy.queries import dashboards, panels, rules

# The timeout is for a machine that others keep busy; alone it takes half a minute.
pytestmark = [pytest.mark.xdist_group("monitoring"), pytest.mark.timeout(240)]

PACKAGES = ROOT / "models"
LOAD_S = 9.0  # longer than the window of a panel's rate
RECORDING = Path(__file__).parent / "dcgm_exporter.txt"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@dataclass(frozen=True)
class Watched:
    """Prometheus, and what it said while the server was at work."""

    prometheus: Prometheus
    panels: dict[tuple[str, str, str], int]  # numbers that each query gave
    scraped: dict[str, str]  # health of each target


class Recorded(BaseHTTPRequestHandler):
    """DCGM exporter, as it once answered."""

    def do_GET(self) -> None:
        content = RECORDING.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        with suppress(ConnectionError):  # Prometheus does not wait for long
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def exporter() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Recorded)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def watched(exporter: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    binary("prometheus")
    folder = tmp_path_factory.mktemp("monitoring")
    models = folder / "models"
    models.mkdir()
    for name in MODELS:
        (models / name).symlink_to(PACKAGES / name)
    flags = ("--engine", "process", "--threads", "1")
    with (
        serving(models, log=folder / "server.log", flags=flags) as server,
        running(folder, {"pxserve": server.metrics, "dcgm": exporter}) as prometheus,
    ):
        with loaded(server.target) as errors:
            traced_call(server.target)
            time.sleep(LOAD_S)
            answers = {key: numbers(prometheus, expr) for key, expr in queries().items()}
            targets = prometheus.get("targets")["activeTargets"]
        assert not errors
        health = {target["labels"]["job"]: target["health"] + target["lastError"] for target in targets}
        yield Watched(prometheus, answers, health)


def traced_call(target: str) -> None:
    """One call that belongs to a trace."""
    import grpc

    from pxserve.v1 import generative_service_pb2_grpc, sample_pb2

    with grpc.insecure_channel(target) as channel:
        stub = generative_service_pb2_grpc.GenerativeServiceStub(channel)
        header = (("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"),)
        stub.Sample(sample_pb2.SampleRequest(model=MODELS[2], n=1), metadata=header, timeout=20)


def queries() -> dict[tuple[str, str, str], str]:
    """Every query of every panel."""
    return {
        (dashboard["title"], panel["title"], target["refId"]): target["expr"]
        for dashboard, panel in panels()
        for target in panel["targets"]
    }


def numbers(prometheus: Prometheus, expr: str) -> int:
    """How many a query gives, over the last seconds and now: a stat panel asks the one, others the other."""
    return min(sum(map(len, prometheus.over(expr, 3.0).values())), len(prometheus.instant(expr)))


def test_both_exporters_are_scraped(watched: Watched) -> None:
    assert watched.scraped == {"pxserve": "up", "dcgm": "up"}


@pytest.mark.parametrize("key", queries(), ids=" / ".join)
def test_a_panel_shows_numbers(watched: Watched, key: tuple[str, str, str]) -> None:
    assert watched.panels[key] > 0, queries()[key]


def test_a_dead_panel_would_be_noticed(watched: Watched) -> None:
    assert numbers(watched.prometheus, 'pxserve_inference_load_ratio_bucket{job=~"$job"}') == 0
    with pytest.raises(AssertionError, match="parse error"):
        watched.prometheus.instant("sum by (pxserve_rows_active")


def test_every_choice_at_the_top_of_a_dashboard_has_values(watched: Watched) -> None:
    for dashboard in dashboards():
        for variable in dashboard["templating"]["list"][1:]:
            series, label = (
                variable["definition"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
            )
            values = watched.prometheus.get(
                f"label/{label}/values", **{"match[]": watched.prometheus.filled(series)}
            )
            assert values, variable["definition"]


def test_prometheus_evaluates_every_rule(watched: Watched) -> None:
    groups = watched.prometheus.get("rules")["groups"]
    known = [rule for group in groups for rule in group["rules"]]
    assert sorted(rule["name"] for rule in known) == sorted(rule.name for rule in rules())
    for rule in known:
        assert rule["health"] == "ok", rule


@pytest.mark.parametrize("name", [rule.name for rule in rules() if rule.alert is None])
def test_a_record_has_numbers(watched: Watched, name: str) -> None:
    assert watched.prometheus.instant(f"last_over_time({name}[1m])")


@pytest.mark.parametrize("rule", [rule for rule in rules() if rule.alert], ids=lambda rule: rule.name)
def test_an_alert_compares_numbers(watched: Watched, rule: Any) -> None:
    sides = rule.sides()
    assert sides
    for side in sides:
        assert watched.prometheus.instant(side), side


def test_nothing_pages_while_the_server_is_well(watched: Watched) -> None:
    alerts = watched.prometheus.get("alerts")["alerts"]
    assert [alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"] == []


def test_a_latency_leads_to_its_trace(watched: Watched) -> None:
    now_s = time.time()
    found = watched.prometheus.get(
        "query_exemplars", query="pxserve_request_seconds_bucket", start=str(now_s - 600), end=str(now_s)
    )
    traces = {exemplar["labels"]["trace_id"] for series in found for exemplar in series["exemplars"]}
    assert traces == {TRACE}
