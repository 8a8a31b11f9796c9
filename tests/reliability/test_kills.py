"""kill -9 at any moment, of a writer or of a server, leaves a repository of whole packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from deploy.demo.server import free_port
from export.package.digest import sha256_file
from export.package.paths import present
from export.package.read import list_versions, read_package
from export.package.write import write_package
from pxserve import Client, PxserveError
from tests.reliability.processes import launched, started, stopped
from tests.reliability.record import Figure, Record

pytestmark = pytest.mark.timeout(300)

NAME = "digits-gan"
SHORT_KILLS, LONG_KILLS = 4, 60


def killed_writer(source: Path, repository: Path, after_s: float) -> None:
    """Start a writer, let it write for a while, and kill it."""
    command = [sys.executable, "-m", "tests.reliability.writer", str(source), str(repository)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    time.sleep(after_s)
    process.kill()
    process.wait()
    process.stdout.close()


def published(repository: Path) -> int:
    """Versions that a reader sees; every one of them has to be whole."""
    versions = list_versions(repository).get(NAME, [])
    for version in versions:
        read_package(repository / NAME / str(version))
    return len(versions)


def kill_writers(source: Path, repository: Path, kills: int) -> tuple[int, int]:
    """Kill that many writers; (versions published, hidden folders that they left)."""
    rng = np.random.default_rng(3)
    left = 0
    for _ in range(kills):
        killed_writer(source, repository, float(rng.uniform(0.0, 0.12)))
        published(repository)
        hidden = list((repository / NAME).glob(".*"))
        left += len(hidden)
        if list_versions(repository).get(NAME):
            assert (repository / NAME / "1").is_dir(), "version 1 was lost while it was replaced"
    return published(repository), left


def test_a_killed_writer_leaves_whole_versions_and_the_next_one_tidies_up(
    models: Path, tmp_path: Path
) -> None:
    repository = tmp_path / "models"
    kill_writers(models / NAME / "1", repository, SHORT_KILLS)
    package = read_package(models / NAME / "1")
    files: dict[str, Path | bytes] = {name: package.path(name) for name in package.spec.files}
    write_package(package.spec, files, repository, 10_000)
    assert not list((repository / NAME).glob(".*"))
    published(repository)


@pytest.mark.reliability
@pytest.mark.timeout(1800)
def test_many_killed_writers_leave_whole_versions(models: Path, tmp_path: Path, record: Record) -> None:
    versions, left = kill_writers(models / NAME / "1", tmp_path / "models", LONG_KILLS)
    record(
        "kill -9 of writers",
        [
            Figure("writers killed", LONG_KILLS),
            Figure("versions published meanwhile", versions),
            Figure("kills that left a hidden folder", left),
        ],
        "A process publishes new versions and replaces version 1 by turns until it is killed at a random "
        "moment; after each kill every version that a reader sees is whole, and version 1 is there.",
    )


def hashes(repository: Path) -> dict[str, str]:
    return {name: sha256_file(repository / name) for name in present(repository)}


def killed_server(models: Path, port: int, log: Path, after_s: float) -> None:
    process, _ = launched(models, port, log)
    time.sleep(after_s)
    process.kill()
    process.wait()


def test_a_server_killed_while_it_answers_fails_its_calls_at_once_and_starts_again(
    models: Path, tmp_path: Path
) -> None:
    repository, log, port = tmp_path / "models", tmp_path / "server.log", free_port()
    for name in (NAME, "digits-diffusion"):
        shutil.copytree(models / name, repository / name)
    before = hashes(repository)
    process, target = started(repository, port, log)
    with stopped(process), Client(target, timeout_s=30.0) as client, ThreadPoolExecutor(4) as pool:
        running = [pool.submit(client.sample, "digits-diffusion", 32, steps=200, seed=k) for k in range(4)]
        time.sleep(0.3)
        process.kill()
        begun = time.monotonic()
        errors = [call.exception(timeout=25.0) for call in running]
        assert time.monotonic() - begun < 10.0
        assert all(isinstance(error, PxserveError) for error in errors)
        assert {error.code.name for error in errors if isinstance(error, PxserveError)} == {"UNAVAILABLE"}
    again, target = started(repository, port, log)  # on the same port
    with stopped(again), Client(target, timeout_s=30.0) as client:
        assert client.sample(NAME, 2, seed=1).data.shape == (2, 1, 8, 8)
    assert hashes(repository) == before


@pytest.mark.reliability
@pytest.mark.timeout(1800)
def test_servers_killed_at_any_moment_of_their_start_start_again(
    models: Path, tmp_path: Path, record: Record
) -> None:
    repository, log, port = tmp_path / "models", tmp_path / "server.log", free_port()
    for name in (NAME, "digits-diffusion", "text-autoregressive"):
        shutil.copytree(models / name, repository / name)
    before = hashes(repository)
    kills = 12
    for after_s in np.linspace(0.2, 12.0, kills):
        killed_server(repository, port, log, float(after_s))
    process, target = started(repository, port, log)
    with stopped(process), Client(target, timeout_s=30.0) as client:
        ready = sum(model.state == "ready" for model in client.list_models())
    changed = set(before.items()) ^ set(hashes(repository).items())
    record(
        "kill -9 of servers",
        [
            Figure("servers killed, 0.2 to 12 s after their start", kills),
            Figure("models ready at the start after that", ready, "", 3),
            Figure("files of the repository that changed", len(changed), "", 0, "at most"),
        ],
        "The same port and the same repository each time.",
    )
