"""Networks of diffusers behind one signature, and the packages that their folders describe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from export.diffusers.any_rows import any_rows
from export.diffusers.build import described
from export.diffusers.denoisers import describe
from export.diffusers.folder import Saved, read_source
from export.diffusers.model import Denoising
from export.diffusers.scheduler import read_scheduler
from export.diffusers.wish import Wish
from export.model import ClassCondition, VectorCondition
from export.model.conditions import TextCondition
from export.package.errors import PackageError
from tests.export.diffusers.folders import (
    CLASSES,
    IMAGENET,
    TOKENS,
    autoencoder,
    bare,
    conditioned,
    ddpm,
    dit,
    dit_pipeline,
    text_pipeline,
    unet,
)

PIXELS: dict[str, Any] = {"levels": 256, "data_range": (-1.0, 1.0)}


def read(folder: Path, schedule: Path | None = None, **wish: Any) -> tuple[Denoising, list[str]]:
    """The model of a folder, and what was said about it."""
    said: list[str] = []
    source = read_source(folder, schedule, wish.get("autoencoder"))
    asked = Wish(folder / "models", scheduler=schedule, **wish)
    return described(
        source,
        read_scheduler(source.scheduler, source.pipeline.scheduler if source.pipeline else None),
        asked,
        "MIT",
        said.append,
    ), said


def test_a_pipeline_states_its_pixels_and_steps(tmp_path: Path) -> None:
    model, said = read(ddpm(tmp_path / "ddpm"))
    section = model.section()
    assert (model.data.shape, model.data.levels, model.data.data_range) == ((3, 8, 8), 256, (-1.0, 1.0))
    assert (section["default_sampler"], section["default_steps"]) == ("ddpm", 1000)
    assert (section["clip_range"], section["clip_default"]) == ([-1.0, 1.0], True)
    assert said == []


@pytest.mark.parametrize(("flags", "classes", "null"), [({"null_label": 4}, 4, 4), ({"null_label": 0}, 5, 0),
                                                      ({"no_null": True}, 5, None)])  # fmt: skip
def test_classes_and_their_null_are_as_stated(
    flags: dict[str, Any], classes: int, null: int | None, tmp_path: Path
) -> None:
    model, _ = read(ddpm(tmp_path / "ddpm", CLASSES), **flags)
    (condition,) = model.conditions
    assert isinstance(condition, ClassCondition)
    assert (condition.name, condition.classes, condition.null_value) == ("label", classes, null)
    answer = model.denoiser(torch.ones(2, 3, 8, 8), torch.tensor([3.0, 700.0]), torch.tensor([0, 3]))
    wanted = unet(CLASSES)(torch.ones(2, 3, 8, 8), torch.tensor([3, 700]), torch.tensor([0, 3])).sample
    torch.testing.assert_close(answer, wanted)


@pytest.mark.parametrize(("learned", "channels"), [(True, 8), (False, 4)])
def test_a_transformer_has_a_null_class_and_perhaps_a_variance(
    learned: bool, channels: int, tmp_path: Path
) -> None:
    variance = {"variance_type": "learned_range"} if learned else {}
    folders = bare(tmp_path, dit(), clip_sample=False, **variance)
    model, said = read(*folders, **(PIXELS | {"levels": 0}))
    (condition,) = model.conditions
    assert isinstance(condition, ClassCondition)
    assert (condition.classes, condition.null_value) == (IMAGENET, IMAGENET)
    given = torch.ones(2, 4, 4, 4), torch.tensor([3.0, 700.0]), torch.tensor([0, IMAGENET])
    answer = model.denoiser(*given)
    assert answer.shape[1] == channels
    torch.testing.assert_close(answer, dit()(*given).sample[:, :channels])
    assert model.learned is learned
    assert len(said) == (0 if learned else 1)


def test_channels_beside_the_noisy_ones_become_a_condition(tmp_path: Path) -> None:
    network = unet(in_channels=5)
    model, _ = read(*bare(tmp_path, network), image_condition="sketch", **PIXELS)
    (condition,) = model.conditions
    assert isinstance(condition, VectorCondition)
    assert (condition.name, condition.shape) == ("sketch", (2, 8, 8))
    x, t, sketch = torch.ones(2, 3, 8, 8), torch.tensor([3.0, 700.0]), torch.full((2, 2, 8, 8), 0.5)
    wanted = network(torch.cat([x, sketch], dim=1), t).sample
    torch.testing.assert_close(model.denoiser(x, t, sketch), wanted)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"upsample_type": "resnet", "downsample_type": "resnet", "resnet_time_scale_shift": "scale_shift"},
        {"up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D")},
        {"down_block_types": ("DownBlock2D", "ResnetDownsampleBlock2D")},
    ],
)
def test_graphs_have_any_number_of_rows_and_the_same_values(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    network: nn.Module = unet(**settings)
    given = torch.ones(2, 3, 8, 8), torch.tensor([3.0, 700.0])
    with torch.no_grad():
        wanted = network(*given).sample
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
        with any_rows():
            torch.testing.assert_close(network(*given).sample, wanted, rtol=0, atol=0)


def test_an_autoencoder_is_the_ends_of_the_process(tmp_path: Path) -> None:
    model, _ = read(dit_pipeline(tmp_path / "dit", clip_sample=False))
    assert (model.data.shape, model.latent_shape) == ((3, 8, 8), (4, 4, 4))
    (condition,) = model.conditions
    assert isinstance(condition, ClassCondition)
    assert condition.names[:2] == ("class 0", "class 1")
    assert "clip_range" not in model.section()
    network: Any = autoencoder()
    x, latent = torch.full((2, 3, 8, 8), 0.3), torch.full((2, 4, 4, 4), 0.2)
    assert model.encoder is not None
    assert model.decoder is not None
    wanted = (network.encode(x).latent_dist.mode() - 0.1) * 0.5
    torch.testing.assert_close(model.encoder(x), wanted)
    torch.testing.assert_close(model.decoder(latent), network.decode(latent / 0.5 + 0.1).sample)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}, "latents_mean and latents_std"),
        ({"latent_channels": 3}, "latents have 3 channels, not the denoiser's 4"),
    ],
)
def test_another_autoencoder_is_refused(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    folder = dit_pipeline(tmp_path / "dit", clip_sample=False)
    autoencoder(**settings).save_pretrained(tmp_path / "other")  # type: ignore[operator]
    with pytest.raises(PackageError, match=said):
        read(folder, autoencoder=tmp_path / "other")


def test_hidden_states_of_nobody_s_encoder_are_a_condition_of_their_own(tmp_path: Path) -> None:
    network = conditioned(CLASSES)
    folders = bare(tmp_path, network, clip_sample=False)
    with pytest.raises(PackageError, match="--sequence-length N"):
        read(*folders, no_null=True, **PIXELS)
    model, _ = read(*folders, no_null=True, sequence_length=3, **PIXELS)
    label, states = model.conditions
    assert isinstance(states, VectorCondition)
    assert (label.name, states.name, states.shape) == ("label", "encoder_hidden_states", (3, 16))
    x, t, classes = torch.ones(2, 4, 4, 4), torch.tensor([3.0, 700.0]), torch.tensor([0, 3])
    hidden = torch.linspace(-1.0, 1.0, 96).reshape(2, 3, 16)
    wanted = network(x, t, hidden, class_labels=classes).sample
    torch.testing.assert_close(model.denoiser(x, t, classes, hidden), wanted)


def test_a_text_encoder_becomes_a_component_with_its_tokenizer(tmp_path: Path) -> None:
    folder = text_pipeline(tmp_path / "text", clip_sample=False, steps_offset=1)
    path = folder / "scheduler" / "scheduler_config.json"  # as older ones are, which the pipeline puts right
    path.write_text(json.dumps(json.loads(path.read_text()) | {"clip_sample": True, "steps_offset": 0}))
    model, said = read(folder)
    (condition,) = model.conditions
    assert isinstance(condition, TextCondition)
    assert (condition.name, condition.shape, len(condition.null_tokens)) == ("text", (TOKENS, 16), TOKENS)
    assert list(model.parts()) == ["denoiser", "text_encoder", "encoder", "decoder"]
    assert list(model.files()) == ["tokenizer.json"]
    assert said == [
        "steps_offset is 1, as the pipeline sets it, not 0",
        "clip_sample is False, as the pipeline sets it, not True",
    ]
    section = model.section()
    assert (section["grid"]["offset"], section.get("clip_default", False)) == (1, False)


@pytest.mark.parametrize(
    ("key", "value"), [("addition_embed_type", "text"), ("mid_block_type", "UNetMidBlock2DSimpleCrossAttn")]
)
def test_conditions_without_a_counterpart_are_refused_by_name(key: str, value: str, tmp_path: Path) -> None:
    folders = bare(tmp_path, conditioned(), clip_sample=False)
    network: Any = conditioned()
    network.register_to_config(**{key: value})
    config = {**network.config, "_class_name": "UNet2DConditionModel"}
    saved = Saved(folders[0], config | {"_where": folders[0] / "config.json"})
    with pytest.raises(PackageError, match=f"{key} '{value}' is not supported"):
        describe(saved, network, read_scheduler(folders[1]), Wish(tmp_path, sequence_length=3))
