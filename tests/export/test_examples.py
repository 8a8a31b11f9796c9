"""The examples of the documentation: each is exported by the command, served, and asked over gRPC.

What comes back is compared with the torch network itself, asked in the way in which it was written.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from deploy.demo.server import serving
from export.cli import main
from export.model import Model
from export.package.read import read_package
from export.package.run_graph import open_graph
from pxserve import Client

pytestmark = pytest.mark.xdist_group("examples")

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
# Name, function, format: TorchScript where the graph is of no interest, since it is written sooner.
BUILDS = {
    "pixelcnn": ("pixelcnn:build", "torchscript"),
    "made": ("made:build", "torchscript"),
    "transformer": ("transformer:build", "onnx"),
    "vae-bernoulli": ("vae:bernoulli", "torchscript"),
    "vae-gaussian": ("vae:gaussian", "torchscript"),
    "vae-logistic": ("vae:logistic", "torchscript"),
    "gan": ("gan:build", "torchscript"),
    "gan-complete": ("gan:complete", "torchscript"),
    "ddpm": ("denoisers:ddpm", "onnx"),
    "score": ("denoisers:score", "torchscript"),
    "flow": ("denoisers:flow", "torchscript"),
}
Array = NDArray[Any]
RNG = np.random.default_rng(0)


def built(name: str) -> Model:
    """The example's own model, with its torch networks."""
    module, function = BUILDS[name][0].split(":")
    model = getattr(importlib.import_module(module), function)()
    assert isinstance(model, Model)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every example, exported by the command."""
    to = tmp_path_factory.mktemp("examples")
    for name, (source, kind) in BUILDS.items():
        where = ["--path", str(EXAMPLES), "--to", str(to), "--name", name]
        assert main(["module", source, *where, "--license", "MIT", "--format", kind]) == 0
    return to


@pytest.fixture(scope="module")
def client(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    flags = ["--allow-torchscript"]
    with serving(folder, log=log, flags=flags) as running, Client(running.target, timeout_s=60.0) as it:
        yield it


def floats(values: Any) -> NDArray[np.float64]:
    return np.asarray(values, np.float64)


def asked(network: Any, *values: Array) -> Any:
    with torch.no_grad():
        return network.eval()(*(torch.from_numpy(np.ascontiguousarray(value)) for value in values))


@pytest.mark.parametrize("name", list(BUILDS))
def test_an_example_draws_the_same_rows_again(client: Client, name: str) -> None:
    first, again = client.sample(name, 3, seed=5), client.sample(name, 2, seed=5)
    np.testing.assert_array_equal(first.data[:2], again.data)
    assert len(first.data) == 3
    assert np.isfinite(first.data).all()


def test_the_installed_modules_come_before_the_examples() -> None:
    assert sys.path.index(str(EXAMPLES)) > sys.path.index(str(Path(np.__file__).parents[1]))


def test_a_pixelcnn_scores_with_its_own_conditionals(client: Client) -> None:
    data = RNG.integers(0, 17, (2, 1, 8, 8), np.uint8)
    logits = asked(built("pixelcnn").network.module, data.astype(np.float32) / 16)  # type: ignore[attr-defined]
    law = torch.log_softmax(logits.double(), dim=1).gather(1, torch.from_numpy(data).long())
    np.testing.assert_allclose(
        client.likelihood("pixelcnn", data).log_prob, law.sum((1, 2, 3)).numpy(), rtol=1e-5
    )


def test_made_scores_in_its_own_order(client: Client) -> None:
    data = RNG.integers(0, 2, (2, 1, 4, 4), np.uint8)
    odds = asked(built("made").network, data.reshape(2, 16).astype(np.float32)).double()  # type: ignore[attr-defined]
    signed = torch.where(torch.from_numpy(data.reshape(2, 16)) == 1, odds, -odds)
    terms = torch.nn.functional.logsigmoid(signed).numpy()
    found = client.likelihood("made", data, per_dimension=True)
    np.testing.assert_allclose(found.log_prob, terms.sum(1), rtol=1e-5)
    np.testing.assert_allclose(floats(found.log_prob_map).reshape(2, 16), terms, rtol=1e-4, atol=1e-5)


def test_made_completes_what_is_given_first_in_its_order(client: Client) -> None:
    model = built("made")
    order = np.array(model.order)  # type: ignore[attr-defined]
    observed = np.zeros((1, 1, 4, 4), bool)
    observed.reshape(-1)[order[:10]] = True
    data = RNG.integers(0, 2, (1, 1, 4, 4), np.uint8)
    found = client.inpaint("made", data, observed, n=4, method="left_to_right", seed=1)
    assert (found.data[:, :, observed[0]] == data[0][observed[0]]).all()


def test_a_transformer_scores_text_of_any_length(client: Client) -> None:
    text = "two rows"
    ids = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
    logits = asked(built("transformer").network, np.concatenate([[256], ids])[None])  # type: ignore[attr-defined]
    law = torch.log_softmax(logits.double(), dim=-1)[0, :-1]
    given = law[np.arange(len(ids)), ids].sum()
    scored = client.likelihood("transformer", [text])
    np.testing.assert_allclose(scored.log_prob, [float(given)], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("vae-bernoulli", RNG.integers(0, 2, (2, 1, 8, 8), np.uint8)),
        ("vae-gaussian", RNG.random((2, 1, 8, 8), np.float32)),
        ("vae-logistic", RNG.integers(0, 17, (2, 1, 8, 8), np.uint8)),
    ],
)
def test_a_vae_encodes_with_its_own_posterior_and_scores(client: Client, name: str, data: Array) -> None:
    model = built(name)
    x = data / 8.0 - 1.0 if name == "vae-logistic" else data
    found = asked(model.encoder.module, x.astype(np.float32).reshape(2, 64))  # type: ignore[attr-defined]
    np.testing.assert_allclose(floats(client.encode(name, data).latents), found["mu"].numpy(), atol=1e-5)
    scored = client.likelihood(name, data, importance_samples=16, seed=1)
    assert np.isfinite(scored.log_prob).all()
    assert scored.base_measure == ("lebesgue" if name == "vae-gaussian" else "counting")


def test_a_bernoulli_vae_decodes_with_its_sigmoid(client: Client) -> None:
    latents = RNG.standard_normal((3, 6)).astype(np.float32)
    p = asked(built("vae-bernoulli").decoder.module, latents).numpy()  # type: ignore[attr-defined]
    levels = client.decode("vae-bernoulli", latents).data.reshape(3, 64)
    sure = np.abs(p - 0.5) > 1e-3  # the mean, rounded to a level
    np.testing.assert_array_equal(levels[sure], (p > 0.5).astype(np.uint8)[sure])


@pytest.mark.parametrize("name", ["gan", "gan-complete"])
def test_a_gan_decodes_with_its_generator(client: Client, name: str) -> None:
    latents = RNG.standard_normal((3, 16, 1, 1)).astype(np.float32)
    uniform = np.vectorize(lambda z: math.erf(z / math.sqrt(2)))(latents).astype(np.float32)
    x = asked(built(name).generator, uniform if name == "gan" else latents).numpy()  # type: ignore[attr-defined]
    wanted = np.clip(np.floor((x + 1) * 127.5 + 0.5), 0, 255)
    found = client.decode(name, latents).data.astype(np.float64)
    assert np.abs(found - wanted).max() <= 1.0  # a level, where rounding falls on the border
    assert (found == wanted).mean() > 0.99


def test_a_discriminator_that_ends_in_a_sigmoid_is_kept_in_logits(folder: Path) -> None:
    package = read_package(folder / "gan-complete" / "1")
    run = open_graph(package.component_path("discriminator"), package.spec.components["discriminator"])
    x = RNG.uniform(-1, 1, (3, 3, 8, 8)).astype(np.float32)
    p = asked(built("gan-complete").discriminator, x).reshape(-1)  # type: ignore[attr-defined]
    np.testing.assert_allclose(floats(run({"x": x})["logit"]), torch.logit(p).numpy(), atol=1e-4)


def test_a_ddpm_follows_its_label_and_its_guidance(client: Client) -> None:
    plain = client.sample("ddpm", 2, label=3, seed=1, sampler="ddim", steps=10)
    other = client.sample("ddpm", 2, label=4, seed=1, sampler="ddim", steps=10)
    guided = client.sample("ddpm", 2, label=3, seed=1, sampler="ddim", steps=10, guidance_scale=3.0)
    absent = client.sample("ddpm", 2, seed=1, sampler="ddim", steps=10)
    answers = [answer.data.tobytes() for answer in (plain, other, guided, absent)]
    assert len(set(answers)) == 4


def test_a_flow_that_ran_from_noise_to_data_is_followed_that_way(client: Client) -> None:
    network = built("flow").denoiser  # type: ignore[attr-defined]
    noise = RNG.standard_normal((2, 3)).astype(np.float32)
    x, steps = torch.from_numpy(noise), 50
    with torch.no_grad():
        for step in range(steps):  # midpoints of d x / d t = network(x, t), t from 0 (noise) to 1 (data)
            t = torch.full((2, 1), (step + 0.5) / steps)
            x = x + network(x + network(x, t - 0.5 / steps) / (2 * steps), t) / steps
    found = client.decode("flow", noise)
    np.testing.assert_allclose(floats(found.data), x.numpy(), atol=2e-3)
