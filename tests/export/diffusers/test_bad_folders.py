"""What is wrong with a folder is said with the file and the line to add; nothing is left half-written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from export.cli import main
from tests.export.diffusers.folders import CLASSES, autoencoder, bare, ddpm, unet

Damage = Callable[[Path], object]
WEIGHTS = Path("unet/diffusion_pytorch_model.safetensors")


def configured(file: str, **settings: object) -> Damage:
    def damage(source: Path) -> None:
        path = source / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))

    return damage


def changed(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(source: Path) -> None:
        weights = load_file(source / WEIGHTS)
        change(weights)
        save_file(weights, source / WEIGHTS)

    return damage


def removed(name: str) -> Damage:
    def damage(source: Path) -> None:
        path = source / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def renamed(name: str) -> Damage:
    return lambda source: (source / WEIGHTS).rename(source / "unet" / name)


def truncated(source: Path) -> None:
    path = source / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1000])


INDEX, UNET, SCHEDULE = "model_index.json", "unet/config.json", "scheduler/scheduler_config.json"
DAMAGES: dict[str, tuple[Damage, str]] = {
    "no index": (removed(INDEX), "neither model_index.json (a pipeline) nor config.json"),
    "broken index": (lambda s: (s / INDEX).write_text("{"), "not JSON"),
    "unknown pipeline": (configured(INDEX, _class_name="FluxPipeline"), "Supported: DDPMPipeline"),
    "a part too many": (configured(INDEX, vae=["diffusers", "AutoencoderKL"]), "lists vae"),
    "a part is missing": (removed("scheduler"), "lists this folder, but it is not here"),
    "no weights": (removed(str(WEIGHTS)), "no weights (.safetensors)"),
    "pickled weights": (renamed("diffusion_pytorch_model.bin"), "safe_serialization=True"),
    "another variant": (renamed("diffusion_pytorch_model.fp16.safetensors"), "Add --variant fp16"),
    "truncated weights": (truncated, "it cannot be read"),
    "a weight is missing": (
        changed(lambda w: w.pop("conv_in.weight")),
        "misses weights of the network: conv_in",
    ),
    "a weight too many": (
        changed(lambda w: w.update(extra=torch.ones(2))),
        "has weights that the network does not have: extra",
    ),
    "another shape": (changed(lambda w: w.update({"conv_in.weight": torch.ones(2)})), "weights"),
    "NaN": (changed(lambda w: w["conv_in.weight"].fill_(float("nan"))), "NaN or infinite"),
    "unknown block": (
        configured(UNET, down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"]),
        "CrossAttnDownBlock2D",
    ),
    "unknown network": (configured(UNET, _class_name="UNet3DConditionModel"), "UNet3DConditionModel"),
    "unknown scheduler": (configured(SCHEDULE, _class_name="ReproScheduler"), "Save the model with one of"),
    "unknown prediction": (
        configured(SCHEDULE, prediction_type="noise"),
        "is not supported. Supported: epsilon",
    ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ddpm(tmp_path_factory.mktemp("whole") / "ddpm")


def refused(arguments: list[str], to: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["diffusers", *arguments, "--to", str(to)]) == 1
    assert not to.exists() or not any(path.is_file() for path in to.rglob("*"))
    return capsys.readouterr().err


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_folder_is_refused_by_name(
    case: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, said = DAMAGES[case]
    source = tmp_path / "ddpm"
    shutil.copytree(whole, source)
    damage(source)
    assert said in refused([str(source), "--license", "MIT"], tmp_path / "models", capsys)


def flags(tmp_path: Path, **settings: Any) -> list[str]:
    network, schedule = bare(tmp_path, unet(CLASSES), **settings)
    return [str(network), "--scheduler", str(schedule), "--license", "MIT", "--levels", "256",
            "--data-range", "-1", "1", "--null-label", "4"]  # fmt: skip


@pytest.mark.parametrize(
    ("flag", "values", "said"),
    [
        ("--scheduler", 1, "Add --scheduler DIR"),
        ("--license", 1, "Give --license NAME"),
        ("--levels", 1, "Add --levels 256"),
        ("--data-range", 2, "Add --data-range -1 1"),
        ("--null-label", 1, "--null-label ID (often 4, the last), or --no-null-label"),
    ],
)
def test_what_no_file_states_is_asked_for(
    flag: str, values: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = flags(tmp_path)
    place = arguments.index(flag)
    del arguments[place : place + 1 + values]
    assert said in refused(arguments, tmp_path / "models", capsys)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--labels", "a,b"], "2 labels for 4 classes"),
        (["--null-label", "9"], "--null-label 9, but the network has 5 class embeddings"),
        (["--image-condition", "mask"], "reads no channels beside the noisy ones"),
        (["--data-range", "-1", "1", "--levels", "1"], "one level carries no data"),
    ],
)
def test_flags_that_contradict_the_network_are_refused(
    more: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused([*flags(tmp_path), *more], tmp_path / "models", capsys)


def test_an_autoencoder_alone_is_no_denoiser(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    autoencoder().save_pretrained(tmp_path / "vae")  # type: ignore[operator]
    assert "--vae" in refused([str(tmp_path / "vae"), "--license", "MIT"], tmp_path / "models", capsys)


def test_an_interrupted_export_leaves_nothing(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("export.assemble.modules.export_onnx", interrupted)
    assert main(["diffusers", str(whole), "--license", "MIT", "--to", str(tmp_path / "models")]) == 130
    assert "nothing half-written" in capsys.readouterr().err
    assert not any(path.is_file() for path in (tmp_path / "models").rglob("*"))


def test_a_full_disk_leaves_nothing(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("export.assemble.modules.export_onnx", lambda *_, **__: None)
    monkeypatch.setattr("export.assemble.modules.state_shapes", lambda *_: None)
    monkeypatch.setattr("export.assemble.modules.save_onnx", full)
    said = refused([str(whole), "--license", "MIT"], tmp_path / "models", capsys)
    assert "No space left on device" in said
    assert "Nothing was published" in said
