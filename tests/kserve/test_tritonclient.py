"""The stock ``tritonclient`` asks a real server, in an environment and a process of its own.

Its messages have the names of the server's own, and one process cannot hold both. It is installed once, into
``build/``, from a package index: ``pytest -m slow tests/kserve``.
"""

from __future__ import annotations

import json
import re
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.demo.server import Running, serving
from pxserve import Client

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
NAMES = ("digits-diffusion", "digits-gan", "digits-vae", "text-autoregressive")
REQUIREMENT = "tritonclient[grpc]==2.73.0"
ENVIRONMENT = ROOT / "build" / "tritonclient-2.73.0"
SECTION = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## KServe clients\n")[2]
[SNIPPET] = re.findall(r"^```python\n(.*?)^```", SECTION.partition("\n## ")[0], re.M | re.S)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def python() -> Path:
    """An interpreter that has tritonclient."""
    interpreter = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / ".installed").exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        subprocess.run([interpreter, "-m", "pip", "install", "--quiet", REQUIREMENT], check=True)
        (ENVIRONMENT / ".installed").touch()
    return interpreter


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("models")
    for name in NAMES:
        (folder / name).symlink_to(MODELS / name)
    with serving(folder, log=tmp_path_factory.mktemp("server") / "server.log") as running:
        yield running


@pytest.fixture(scope="module")
def session(python: Path, server: Running) -> dict[str, Any]:
    """What the client printed."""
    command = [str(python), str(Path(__file__).with_name("session.py")), server.target]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


def test_it_finds_the_server_its_models_and_their_tensors(session: dict[str, Any]) -> None:
    found = session["describe"]
    assert (found["live"], found["ready"], found["model_ready"]) == (True, True, [True, False])
    assert (found["server"], found["optional"]) == ("pxserve", True)
    assert ["data", "UINT8", ["-1", "1", "8", "8"]] in found["outputs"]
    assert found["index"] == sorted(NAMES)


def test_it_samples_scores_and_completes_as_the_client_of_pxserve_does(
    session: dict[str, Any], server: Running
) -> None:
    found = session["answers"]
    observed = np.zeros((8, 8), bool)
    observed[:4] = True
    with Client(server.target, timeout_s=60.0) as client:
        samples = client.sample(
            "digits-diffusion", 4, seed=7, label=3, steps=20, guidance_scale=2.0, sampler="ddim"
        )
        np.testing.assert_array_equal(found["sample"], samples.data)
        scored = client.likelihood("digits-vae", samples.data, seed=1)
        np.testing.assert_array_equal(found["log_prob"], scored.log_prob)
        completed = client.inpaint("digits-vae", samples.data, observed, n=2, seed=1)
        np.testing.assert_array_equal(found["completions"], completed.data)
        text = client.sample("text-autoregressive", prompt="The import", max_new_tokens=20, seed=1)
        assert found["text"] == list(text.text)
        line = client.likelihood("text-autoregressive", ["Hello there"])
        np.testing.assert_array_equal(found["text_log_prob"], line.log_prob)
    assert (found["id"], found["kind"]) == ("mine", samples.kind)
    assert found["completion_outputs"] == ["data"]


def test_it_reads_refusals_as_statuses(session: dict[str, Any]) -> None:
    statuses = [status.removeprefix("StatusCode.") for status, _ in session["refusals"]]
    assert statuses == [
        "NOT_FOUND",
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
        "FAILED_PRECONDITION",
        "DEADLINE_EXCEEDED",
    ]
    assert "speed" in session["refusals"][1][1]


def test_it_loads_the_server_and_the_repository(session: dict[str, Any]) -> None:
    assert session["load"] == {"unary": 200, "streamed": 200}
    assert session["repository"] == [False, True]


def test_the_snippet_of_the_readme_runs(python: Path, server: Running) -> None:
    program = SNIPPET.replace("127.0.0.1:8500", server.target)
    ran = subprocess.run(
        [str(python), "-c", program], capture_output=True, text=True, check=False, timeout=100
    )
    assert ran.stdout.strip() == "(16, 1, 8, 8) uint8", ran.stderr
