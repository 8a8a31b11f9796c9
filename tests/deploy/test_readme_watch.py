"""The commands of the README's section "Watch it" do what it says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.demo.server import free_port
from tests.deploy.prometheus import ROOT, Prometheus, binary, wait_until_ready
from tests.deploy.queries import rules

SECTION = (
    (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Watch it\n")[2].partition("\n## ")[0]
)
(BLOCK,) = re.findall(r"^```bash\n(.*?)^```", SECTION, re.M | re.S)
COMMANDS = [shlex.split(line) for line in BLOCK.splitlines()]


def command(name: str) -> list[str]:
    (found,) = [command for command in COMMANDS if Path(command[0]).name == name]
    return found


def test_every_command_is_run_below() -> None:
    assert sorted(Path(command[0]).name for command in COMMANDS) == ["prometheus", "python"]


def test_prometheus_starts_with_the_rules_and_the_targets(tmp_path: Path) -> None:
    port = free_port()
    places = [f"--storage.tsdb.path={tmp_path}", f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        started = [str(binary("prometheus")), *command("prometheus")[1:], *places]
        process = subprocess.Popen(started, cwd=ROOT, stdout=output, stderr=output)
    try:
        wait_until_ready(port, process, log)
        prometheus = Prometheus(f"127.0.0.1:{port}")
        groups = prometheus.get("rules")["groups"]
        assert sum(len(group["rules"]) for group in groups) == len(rules())
        assert "http://127.0.0.1:8502/metrics" in discovered(prometheus)
        # Nobody serves here, which an alert may have seen already; but it waits before it calls anybody.
        assert [alert for alert in prometheus.get("alerts")["alerts"] if alert["state"] == "firing"] == []
    finally:
        process.terminate()
        process.wait(20)


def discovered(prometheus: Prometheus) -> set[str]:
    """Addresses of targets; Prometheus takes some seconds to find those of its own configuration."""
    until = time.monotonic() + 30.0
    while time.monotonic() < until:
        found = {target["scrapeUrl"] for target in prometheus.get("targets")["activeTargets"]}
        if found:
            return found
        time.sleep(0.2)
    return set()


def test_the_dashboards_are_written(tmp_path: Path) -> None:
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    _, *arguments = command("python")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    before = {path: path.read_bytes() for path in (ROOT / "deploy" / "grafana" / "dashboards").iterdir()}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.split()) == len(before) == 5
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize("flag", ["--otlp-endpoint"])
def test_the_flags_exist(flag: str) -> None:
    assert f"`{flag} " in SECTION
    from serving.cli import parser

    assert flag in parser().format_help()
