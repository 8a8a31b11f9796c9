"""A real Prometheus on a free port of this machine, and its promtool; skipped where neither is at hand."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.demo.server import free_port

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
FETCHED = ROOT / "build" / "prometheus"
START_TIMEOUT_S = 30.0


def binary(name: str) -> Path:
    """``prometheus`` or ``promtool``, installed or fetched by ``make build/prometheus/promtool``."""
    found = shutil.which(name) or shutil.which(name, path=str(FETCHED))
    if found is None:
        pytest.skip(f"no {name}: `make build/prometheus/promtool` fetches Debian's package")
    return Path(found)


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool."""
    command = [str(binary("promtool")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@dataclass(frozen=True)
class Prometheus:
    """A running server; ``window`` stands for Grafana's $__rate_interval."""

    address: str
    window: str = "6s"

    def get(self, path: str, **parameters: str) -> Any:
        """``data`` of the HTTP API; AssertionError with what it says of a query that it rejects."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}?{query}", timeout=20) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def instant(self, expr: str) -> dict[str, float]:
        """Value of each series that is a number now."""
        result = self.get("query", query=self.filled(expr))["result"]
        values = {json.dumps(series["metric"]): float(series["value"][1]) for series in result}
        return {labels: value for labels, value in values.items() if value == value}

    def over(self, expr: str, seconds: float) -> dict[str, list[float]]:
        """Numbers of each series over the last seconds, one per second."""
        now_s = time.time()
        span = {"start": f"{now_s - seconds:.3f}", "end": f"{now_s:.3f}", "step": "1"}
        result = self.get("query_range", query=self.filled(expr), **span)["result"]
        found = {
            json.dumps(series["metric"]): [float(value) for _, value in series["values"]] for series in result
        }
        numbers = {labels: [value for value in values if value == value] for labels, values in found.items()}
        return {labels: values for labels, values in numbers.items() if values}

    def filled(self, expr: str) -> str:
        """A panel's query with everything chosen."""
        for variable in ("job", "instance", "model", "node", "gpu"):
            expr = expr.replace(f'"${variable}"', '".*"')
        expr = expr.replace("$__rate_interval", self.window)
        assert "$" not in expr, expr
        return expr


@contextlib.contextmanager
def running(folder: Path, targets: Mapping[str, str]) -> Iterator[Prometheus]:
    """Scrapes ``targets`` (address by job) every second, with the rules of deploy/prometheus."""
    port = free_port()
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump(scraping(targets)))
    command = [
        str(binary("prometheus")),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until_ready(port, process, folder / "prometheus.log")
        yield Prometheus(f"127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(20)


def scraping(targets: Mapping[str, str]) -> dict[str, Any]:
    """A configuration; the rules are those that are shipped."""
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(FOLDER / "rules" / "*.rules.yml")],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [address]}]} for job, address in targets.items()
        ],
    }


def wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Block until it answers."""
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2),
        ):
            return
        time.sleep(0.1)
    raise AssertionError(log.read_text())
