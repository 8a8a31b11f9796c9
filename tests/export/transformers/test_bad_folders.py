from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from export.cli import main
from tests.export.transformers.folders import VOCABULARY, folder

Damage = Callable[[Path], object]


def configured(**settings: object) -> Damage:
    def damage(source: Path) -> None:
        path = source / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))

    return damage


def changed(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(source: Path) -> None:
        weights = load_file(source / "model.safetensors")
        change(weights)
        save_file(weights, source / "model.safetensors")

    return damage


def pickled(source: Path) -> None:
    (source / "model.safetensors").rename(source / "pytorch_model.bin")


def truncated(source: Path) -> None:
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def indexed(source: Path) -> None:
    (source / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "missing.safetensors"}})
    )


LAST = "model.layers.1.mlp.up_proj.weight"
DAMAGES: dict[str, tuple[Damage, str]] = {
    "no config": (lambda s: (s / "config.json").unlink(), "config.json: there is no such file"),
    "broken config": (lambda s: (s / "config.json").write_text("{"), "not JSON"),
    "unknown architecture": (configured(architectures=["FooForCausalLM"]), "Supported: GPT2LMHeadModel"),
    "code of its own": (configured(architectures=["X"], auto_map={"a": "b"}), "code of its own"),
    "quantised": (configured(quantization_config={"bits": 4}), "quantised already"),
    "pickled weights": (pickled, "safe_serialization=True"),
    "no weights": (lambda s: (s / "model.safetensors").unlink(), "neither model.safetensors nor"),
    "truncated weights": (truncated, "not a whole safetensors file"),
    "missing shard": (indexed, "names this file, but it is not here"),
    "missing weight": (changed(lambda w: w.pop(LAST)), f"there is no weight '{LAST}'"),
    "extra weight": (
        changed(lambda w: w.update(lora=torch.zeros(1))),
        "have no place in this architecture: lora",
    ),
    "NaN": (changed(lambda w: w[LAST].fill_(float("nan"))), f"{LAST} holds NaN or infinity"),
    "other shape": (configured(intermediate_size=81), "but config.json means"),
    "window": (
        configured(architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=8),
        "--max-length 8",
    ),
    "activation": (configured(hidden_act="mish"), "the activation 'mish'"),
    "begin symbol": (configured(bos_token_id=VOCABULARY), "--begin-token"),
    "dynamic angles": (
        configured(
            rope_scaling={"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 40}
        ),
        "--max-length 40",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", DAMAGES)
def test_a_bad_folder_is_refused_with_what_to_do(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, said = DAMAGES[name]
    source = folder("llama", tmp_path)
    (source / "generation_config.json").unlink(missing_ok=True)
    damage(source)
    assert main(["transformers", str(source), "--to", str(tmp_path / "models")]) == 1
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "models").rglob("*")), "nothing half-written is left"


def test_a_licence_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder("gpt2", tmp_path)
    (source / "README.md").unlink()
    assert main(["transformers", str(source), "--to", str(tmp_path / "models")]) == 1
    assert "--license" in capsys.readouterr().err


def test_a_longer_row_than_the_network_has_positions_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = folder("gpt2", tmp_path)
    command = ["transformers", str(source), "--to", str(tmp_path / "models"), "--max-length", "81"]
    assert main(command) == 1
    assert "has 80 positions" in capsys.readouterr().err


def test_a_version_that_exists_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["transformers", str(folder("gpt2", tmp_path)), "--to", str(tmp_path / "models")]
    assert main(command) == 0
    assert main(command) == 1
    assert "versions do not change" in capsys.readouterr().err
    assert main([*command, "--replace"]) == 0


def test_a_disk_that_fills_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from export.graph import store

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    source = folder("gpt2", tmp_path)
    monkeypatch.setattr(store.Beside, "add", full)
    assert main(["transformers", str(source), "--to", str(tmp_path / "models")]) == 1
    assert "No space left" in capsys.readouterr().err
    assert not list((tmp_path / "models").rglob("*"))


def test_a_disk_that_is_too_small_is_seen_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Usage:
        free = 1000

    source = folder("gpt2", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
    assert main(["transformers", str(source), "--to", str(tmp_path / "models")]) == 1
    assert "GiB are free" in capsys.readouterr().err
