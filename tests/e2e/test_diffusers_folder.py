"""A folder that diffusers saved, exported as README says, served, and asked over gRPC."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.demo.server import serving
from export.package.read import read_package
from pxserve import Client
from tests.e2e.pipelines import (
    PREDICTION,
    ROWS,
    SEED,
    STEPS,
    agree,
    export,
    model_units,
    real_valued,
    started,
)
from tests.export.diffusers.folders import CLASSES, bare, ddpm, diffusers, unet

pytestmark = [
    pytest.mark.timeout(300),  # a process that imports diffusers, and a server
    pytest.mark.filterwarnings(
        "ignore:__array__ implementation:DeprecationWarning"
    ),  # NumPy on their tensors
]

README = Path(__file__).parents[2] / "README.md"
BOTH = " --precision float32 --precision bfloat16"
SOLVERS = {"ddim": "DDIMScheduler", "dpmpp_2m": "DPMSolverMultistepScheduler"}


def commands() -> list[str]:
    """The commands of README's section."""
    section = README.read_text().split("### From a diffusers folder")[1].split("\n#")[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, re.S)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where README's commands run: its folders, their packages, and one of these with real numbers."""
    at = tmp_path_factory.mktemp("folder")
    ddpm(at / "my-ddpm", **PREDICTION)
    small = unet(CLASSES, block_out_channels=(8,), down_block_types=("DownBlock2D",),
                 up_block_types=("UpBlock2D",), mid_block_type=None)  # fmt: skip
    network, schedule = bare(at, small)
    network.rename(at / "my-unet")
    schedule.rename(at / "my-scheduler")
    with pytest.MonkeyPatch.context() as patch:
        for command in (c for c in commands() if "pxserve-export" in c):
            export(command + (BOTH if "my-unet" in command else ""), at, patch)
    real_valued(at / "models" / "my-ddpm" / "1", "exact")
    return at


@pytest.fixture(scope="module")
def target(place: Path) -> Iterator[str]:
    with serving(place / "models", log=place / "server.log") as running:
        yield running.target


@pytest.fixture(scope="module")
def client(target: str) -> Iterator[Client]:
    with Client(target, timeout_s=110.0) as it:
        yield it


def test_a_graph_in_bfloat16_lies_beside_and_harms_nobody(client: Client, place: Path) -> None:
    denoiser = read_package(place / "models" / "my-unet" / "1").spec.components["denoiser"]
    (variant,) = denoiser.variants
    assert (denoiser.format, denoiser.precision) == ("onnx", "float32")
    assert (variant.format, variant.precision, variant.device) == ("torchscript", "bfloat16", "cpu")
    assert variant.parity is not None
    assert 0.0 < variant.parity.max_rel_error < 8e-2
    assert client.sample("my-unet", 2, steps=2, label=1).data.shape == (2, 3, 8, 8)


def test_the_commands_of_readme_run(place: Path, target: str) -> None:
    asked = [command for command in commands() if ".venv/bin/pxserve " in command]
    assert asked
    for command in asked:
        name, *rest = shlex.split(command)
        words = [str(Path(sys.executable).with_name(Path(name).name)), *rest, "--target", target]
        done = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=110, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


@pytest.mark.parametrize("sampler", SOLVERS)
def test_samples_follow_the_pipeline_from_the_same_noise(
    client: Client, place: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = client.sample("exact", ROWS, sampler=sampler, steps=STEPS, seed=SEED, clip=sampler == "ddim").data
    pipeline: Any = diffusers().DDPMPipeline.from_pretrained(place / "my-ddpm", local_files_only=True)
    pipeline.scheduler = getattr(diffusers(), SOLVERS[sampler]).from_config(pipeline.scheduler.config)
    states = started(pipeline, monkeypatch)
    pipeline(batch_size=ROWS, num_inference_steps=STEPS, output_type="np")
    agree(model_units(found), states[-1])
