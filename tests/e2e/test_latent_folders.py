"""Folders of latent diffusion, exported, served, and asked over gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deploy.demo.server import serving
from pxserve import Client, PxserveError
from tests.e2e.pipelines import PREDICTION, ROWS, SEED, STEPS, agree, export, model_units, started
from tests.export.diffusers.folders import IMAGENET, autoencoder, diffusers, dit_pipeline, text_pipeline

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]

MODEL, TEXT = "my-dit", "my-text-to-image"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("folder")
    dit_pipeline(at / MODEL, clip_sample=False, **PREDICTION)
    text_pipeline(at / TEXT, clip_sample=False, steps_offset=1, **PREDICTION)
    with pytest.MonkeyPatch.context() as patch:
        for name in (MODEL, TEXT):
            export(f"pxserve-export diffusers {name} --license MIT --levels 0 --to models", at, patch)
    return at


@pytest.fixture(scope="module")
def client(place: Path) -> Iterator[Client]:
    with (
        serving(place / "models", log=place / "server.log") as running,
        Client(running.target, timeout_s=110.0) as it,
    ):
        yield it


def test_samples_follow_the_pipeline_with_guidance(
    client: Client, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.array([3, 0, IMAGENET - 1])
    found = client.sample(
        MODEL, ROWS, sampler="ddim", steps=STEPS, seed=SEED, label=labels, guidance_scale=4.0
    ).data
    pipeline: Any = diffusers().DiTPipeline.from_pretrained(place / MODEL, local_files_only=True)
    states = started(pipeline, monkeypatch)
    pipeline(labels.tolist(), num_inference_steps=STEPS, guidance_scale=4.0, output_type="np")
    with torch.no_grad():
        network: Any = autoencoder()
        wanted = network.decode(torch.from_numpy(states[-1]) / 0.5 + 0.1).sample.numpy()
    agree(model_units(found), wanted)


def test_rows_are_completed_encoded_and_decoded(client: Client) -> None:
    drawn = client.sample(MODEL, 2, sampler="ddim", steps=4, seed=3, label=1)
    observed = np.zeros((3, 8, 8), bool)
    observed[:, :5] = True
    completed = client.inpaint(MODEL, drawn.data, observed, n=2, steps=3, seed=1, label=1)
    assert completed.kind == "approximate"
    np.testing.assert_array_equal(completed.data[:, 0, :, :5], drawn.data[:, :, :5])
    code = client.encode(MODEL, drawn.data, label=1)
    assert code.latents.shape == (2, 4, 4, 4)
    back = client.decode(MODEL, code.latents, label=1)
    np.testing.assert_array_equal(back.data, client.reconstruct(MODEL, drawn.data, label=1).data)
    with pytest.raises(PxserveError, match="decoder gives pixels none"):
        client.likelihood(MODEL, drawn.data, label=1)


def test_texts_are_read_as_the_pipeline_reads_them(
    client: Client, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["a cat", "two DOGS!", "a cat"]
    found = client.sample(
        TEXT, ROWS, sampler="ddim", steps=STEPS, seed=SEED, guidance_scale=5.0, conditions={"text": texts}
    ).data
    pipeline: Any = diffusers().StableDiffusionPipeline.from_pretrained(place / TEXT, local_files_only=True)
    states = started(pipeline, monkeypatch)
    pipeline(texts, num_inference_steps=STEPS, guidance_scale=5.0, output_type="np")
    with torch.no_grad():
        network: Any = autoencoder(shift_factor=None)
        wanted = network.decode(torch.from_numpy(states[-1]) / 0.5).sample.numpy()
    agree(model_units(found), wanted)


def test_no_text_is_the_empty_one_and_long_ones_are_refused(client: Client) -> None:
    asked: dict[str, Any] = {"sampler": "ddim", "steps": 3, "seed": 1}
    none = client.sample(TEXT, 2, **asked).data
    np.testing.assert_array_equal(none, client.sample(TEXT, 2, conditions={"text": ""}, **asked).data)
    np.testing.assert_array_equal(none, client.sample(TEXT, 2, conditions={"text": None}, **asked).data)
    assert (none != client.sample(TEXT, 2, conditions={"text": "a cat"}, **asked).data).any()
    with pytest.raises(PxserveError, match=r"has 42 tokens; at most 24"):
        client.sample(TEXT, conditions={"text": "x" * 40}, **asked)
    with pytest.raises(PxserveError, match="'text' is a text: set texts"):
        client.sample(TEXT, conditions={"text": np.zeros((1, 24, 16))}, **asked)


@pytest.mark.parametrize("model", [MODEL, TEXT])
def test_the_server_s_own_checks_hold(client: Client, model: str) -> None:
    checks = client.self_test(model).checks
    assert len(checks) > 5
    assert not [check for check in checks if check.verdict == "fail" and check.holds_for_any_weights]
