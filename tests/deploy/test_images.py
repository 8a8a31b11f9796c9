"""The image recipe and the compose file: linted, and naming only what the code and the folder have."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from export.cli import _parser as export_parser
from pxserve.cli.flags import parser as client_parser
from serving.cli import parser as server_parser
from serving.config import Config, read_file

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
TEXT = DOCKERFILE.read_text().replace("\\\n", "")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
LAST_WORDS_S = 10


def stages() -> dict[str, str]:
    """Stage name -> its instructions."""
    parts = re.split(r"^FROM .* AS (\S+)$", TEXT, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def instruction(name: str) -> Any:
    [found] = re.findall(rf"^{name} (?:.*?CMD )?(\[.*\])$", TEXT, re.M)
    return json.loads(found)


def test_the_linter_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_images_do_not_run_as_root_and_hold_no_sources(target: str) -> None:
    text = stages()[target]
    [user] = re.findall(r"^USER (\d+):\d+$", text, re.M)
    assert int(user) >= 10000
    assert re.findall(r"^COPY (.*)$", text, re.M) == [f"--from=packages-{target} /opt/pxserve /opt/pxserve"]


def test_the_wheels_are_built_where_a_compiler_is() -> None:
    assert " gcc " in stages()["wheels"]
    assert " gcc " not in stages()["cpu"]


def test_threads_share_the_memory_that_they_free() -> None:
    """Else each keeps what its largest request took: docs/operations.md has the figures."""
    assert " MALLOC_ARENA_MAX=2 " in stages()["runtime"]


def test_the_default_command_serves_the_exposed_ports() -> None:
    assert instruction("ENTRYPOINT") == ["pxserve-server"]
    given = server_parser().parse_args(instruction("CMD"))
    [exposed] = re.findall(r"^EXPOSE (.*)$", TEXT, re.M)
    assert [address.rpartition(":")[2] for address in (given.listen, given.metrics)] == exposed.split()


def test_the_health_check_is_a_command_of_the_client() -> None:
    name, *arguments = instruction("HEALTHCHECK")
    assert name == "pxserve"
    assert client_parser().parse_args(arguments).command == "health"


def test_the_builder_gets_everything_that_is_copied_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source for line in re.findall(r"^COPY ((?!--from).*)$", TEXT, re.M) for source in line.split()[:-1]
    }
    assert "*" in lines
    assert copied == allowed
    for source in copied:
        assert (ROOT / source).exists()
        assert not any(fnmatch.fnmatch(source, line) for line in lines if line.startswith("**"))


def test_every_package_of_an_image_is_pinned() -> None:
    installs = re.findall(r"pip install (.*)$", TEXT, re.M)
    assert len(installs) == 4
    assert all("--constraint /constraints.txt" in line for line in installs)
    pins = (ROOT / "constraints.txt").read_text()
    for package in ("torch", "onnxruntime", "onnxruntime-gpu", "grpcio", "numpy"):
        assert re.search(rf"^{package}==", pins, re.M), package


def test_what_compose_mounts_is_there() -> None:
    volumes = [v for service in COMPOSE["services"].values() for v in service.get("volumes", [])]
    for source in [volume.split(":")[0] for volume in volumes]:
        assert source in COMPOSE["volumes"] or (ROOT / "deploy" / source).exists(), source


def test_the_composed_server_is_confined_and_has_time_to_drain() -> None:
    server = COMPOSE["services"]["server"]
    assert server["read_only"] is True
    assert server["cap_drop"] == ["ALL"]
    config = Config(**read_file(ROOT / "deploy" / "compose" / "pxserve.toml"))
    assert int(server["stop_grace_period"].removesuffix("s")) >= config.drain_s + LAST_WORDS_S
    assert config.threads == server["cpus"]
    port = config.listen.rpartition(":")[2]
    assert server["ports"] == [f"127.0.0.1:{port}:{port}"]
    export_parser().parse_args(COMPOSE["services"]["zoo"]["entrypoint"][1:])


def test_prometheus_scrapes_the_composed_server_and_grafana_asks_prometheus() -> None:
    scraped = yaml.safe_load((ROOT / "deploy/compose/prometheus.yml").read_text())["scrape_configs"][0]
    config = read_file(ROOT / "deploy" / "compose" / "pxserve.toml")
    assert scraped["static_configs"] == [{"targets": [f"server:{config['metrics'].rpartition(':')[2]}"]}]
    source = yaml.safe_load((ROOT / "deploy/compose/grafana-datasource.yaml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
