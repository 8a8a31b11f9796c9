"""Latent diffusion around an exact autoencoder: four pixels of a square are the four channels of a latent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from export.package.schema import Affine, DataSpace
from serving.errors import InvalidArgument
from serving.families.calibration import Calibration
from serving.families.diffusion.family import DiffusionFamily
from serving.families.drive import run_alone
from serving.families.request import Operation, Request
from serving.families.result import Completed, CompletionKind, Decoded, Encoded, Result, Sampled
from serving.families.rows import Loop, Tensors
from tests.analytic.diffusion.gaussian import diffusion, package
from tests.serving.families.diffusion.networks import LABEL, Elementwise

PIXELS, LATENTS, ROWS = (1, 8, 8), (4, 4, 4), 3
AXES = ("channel", "height", "width")
IMAGE = DataSpace(kind="image", axes=AXES, shape=PIXELS, dtype="uint8", levels=256,
                  transform=Affine(scale=(2.0 / 255.0,), shift=(-1.0,)))  # fmt: skip


class Counting:
    """A network of the autoencoder, and how many rows it has run."""

    def __init__(self, given: str, found: str, function: Any) -> None:
        self._given, self._found, self._function = given, found, function
        self.rows = 0

    def __call__(self, inputs: Tensors) -> Tensors:
        x = inputs[self._given]
        self.rows += len(x)
        return {self._found: self._function(x, 2)}


def family(calibration: Calibration | None = None) -> DiffusionFamily:
    section = diffusion("vp", latent_shape=LATENTS)
    return DiffusionFamily(package(section, IMAGE, (LABEL,)), calibration)


def networks() -> dict[str, Any]:
    return {
        "denoiser": Elementwise(LATENTS),
        "encoder": Counting("x", "latent", pixel_unshuffle),
        "decoder": Counting("latent", "x", pixel_shuffle),
    }


def answer(model: DiffusionFamily, request: Request, ran: dict[str, Any] | None = None) -> Result:
    tables = model.tables({}, 64, torch.device("cpu"))
    return run_alone(model.program(request), ran or networks(), tables)


def request(operation: Operation, method: str, **changes: Any) -> Request:
    settings: dict[str, Any] = {"steps": 5, "points": 3, **changes.pop("parameters", {})}
    labels = {"label": np.arange(ROWS, dtype=np.int64)}
    return replace(Request(operation, method, settings, 7, 0, ROWS, conditions=labels), **changes)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (ROWS, *PIXELS)).astype(np.uint8)


def test_samples_are_decoded_latents_of_the_process_itself() -> None:
    inner = DiffusionFamily(
        package(
            diffusion("vp"), DataSpace(kind="vector", axes=AXES, shape=LATENTS, dtype="float32"), (LABEL,)
        )
    )
    asked = request(Operation.SAMPLE, "ddim")
    latents, found = answer(inner, asked), answer(family(), asked)
    assert isinstance(latents, Sampled)
    assert isinstance(found, Sampled)
    wanted = pixel_shuffle(torch.from_numpy(np.asarray(latents.data, np.float32)), 2).numpy()
    levels = np.clip(np.floor((wanted + 1.0) * 127.5 + 0.5), 0, 255)
    np.testing.assert_array_equal(found.data, levels.astype(np.uint8))
    assert found.kind == latents.kind


def test_nobody_sees_latents_in_the_place_of_rows() -> None:
    work = next(family().program(request(Operation.SAMPLE, "ddim")))
    assert isinstance(work, Loop)
    assert work.streamed is None


def test_completions_keep_what_is_given_and_are_approximate(pixels: np.ndarray) -> None:
    observed = np.zeros((ROWS, *PIXELS), np.bool_)
    observed[:, :, :5] = True  # the fifth line is half a cell: its latents are drawn, its pixels kept
    asked = request(Operation.INPAINT, "replacement", data=pixels, observed=observed, completions=2,
                    parameters={"moments": True})  # fmt: skip
    found = answer(family(), asked)
    assert isinstance(found, Completed)
    assert found.kind is CompletionKind.APPROXIMATE
    kept = np.broadcast_to(observed[:, None], found.data.shape)
    np.testing.assert_array_equal(found.data[kept], np.repeat(pixels[:, None], 2, axis=1)[kept])
    assert found.mean is not None
    assert found.mean.shape == pixels.shape
    other = np.where(observed, pixels, 255 - pixels)  # what is not observed is never read
    again = answer(family(), replace(asked, data=other))
    assert isinstance(again, Completed)
    np.testing.assert_array_equal(again.data, found.data)


def test_given_pixels_that_no_latent_hears_of_are_refused(pixels: np.ndarray) -> None:
    observed = np.zeros((ROWS, *PIXELS), np.bool_)
    observed[1, :, ::2] = True
    with pytest.raises(InvalidArgument, match="row 1 has no cell of 2 x 2 pixels that is wholly given"):
        answer(family(), request(Operation.INPAINT, "replacement", data=pixels, observed=observed))


@pytest.mark.parametrize(("encoding", "decoding"), [("autoencoder", "autoencoder"), ("inversion", "heun")])
def test_codes_lead_back_to_the_pixels(encoding: str, decoding: str, pixels: np.ndarray) -> None:
    steps = {"steps": 64}
    code = answer(family(), request(Operation.ENCODE, encoding, data=pixels, parameters=steps))
    assert isinstance(code, Encoded)
    assert code.latents.shape == (ROWS, *LATENTS)
    back = answer(family(), request(Operation.DECODE, decoding, latents=code.latents, parameters=steps))
    assert isinstance(back, Decoded)
    gap = np.abs(back.data.astype(int) - pixels.astype(int))
    assert gap.max() <= (0 if encoding == "autoencoder" else 40)
    assert np.median(gap) <= 2


def test_capabilities_say_what_latents_rule_out() -> None:
    found = {capability.operation: capability for capability in family().capabilities()}
    assert not found[Operation.LIKELIHOOD].supported
    assert {method.kind for method in found[Operation.INPAINT].methods} == {"APPROXIMATE"}
    assert found[Operation.ENCODE].default.name == found[Operation.DECODE].default.name == "autoencoder"
    for capability in found.values():
        assert len([m for m in capability.methods if m.is_default]) == int(capability.supported)


@pytest.mark.parametrize("operation", [op for op in Operation if op is not Operation.LIKELIHOOD])
def test_costs_are_known_before_they_are_paid(operation: Operation, pixels: np.ndarray) -> None:
    values = {"typicality": np.linspace(0.0, 5.0, 40), "denoising_error": np.linspace(0.0, 5.0, 40)}
    model = family(Calibration.fit("d", values, {"typicality": [1.0]}))
    capability = next(c for c in model.capabilities() if c.operation is operation)
    for method in capability.methods:
        given = {p.name: p.default for p in method.parameters if p.default is not None}
        few = {
            name: 3 for name in ("steps", "points", "resamplings", "jump_length", "sweeps") if name in given
        }
        asked = request(operation, method.name, parameters={**given, **few}, data=pixels, end=pixels[::-1],
                        observed=np.ones((ROWS, *PIXELS), np.bool_),
                        latents=np.zeros((ROWS, *LATENTS), np.float32))  # fmt: skip
        ran = networks()
        answer(model, asked, ran)
        told = model.network_rows(asked)
        assert {name: network.rows for name, network in ran.items() if network.rows} == told
