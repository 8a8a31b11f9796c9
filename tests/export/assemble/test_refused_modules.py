"""What is wrong with a torch module is said before anything is written: what, where, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from export.model import (
    Autoregressive,
    BeginSymbol,
    Bernoulli,
    ClassCondition,
    Gaussian,
    Image,
    Network,
    Vae,
)
from export.package.errors import Reason
from tests.export.assemble.nets import IMAGE, Denoiser, Generator, diffusion, gan, refusal


@pytest.mark.parametrize(
    ("wrong", "reason", "shown"),
    [
        (
            "branch on values",
            Reason.UNSUPPORTED_NETWORK,
            "control flow depends on the values of tensors at nets.py:",
        ),
        ("python loop over values", Reason.UNSUPPORTED_NETWORK, "torch.where"),
        ("fixed rows", Reason.UNSUPPORTED_NETWORK, "one number of rows only"),
        ("unsupported", Reason.UNSUPPORTED_NETWORK, "no such operation as aten._linalg_eigh"),
        ("dropout", Reason.TRAINING_MODE, "F.dropout(x, training=self.training)"),
        ("batch statistics", Reason.TRAINING_MODE, "norm (BatchNorm2d) keeps no running statistics"),
    ],
)
def test_a_network_that_cannot_be_a_graph_is_refused(
    tmp_path: Path, wrong: str, reason: Reason, shown: str
) -> None:
    error = refusal(diffusion(Denoiser(wrong)), tmp_path)
    assert error.reason is reason
    assert shown in str(error)


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    network = Generator()
    with torch.no_grad():
        network.layer.weight[3, 2] = torch.nan
    error = refusal(gan(network), tmp_path)
    assert error.reason is Reason.BAD_WEIGHTS
    assert "layer.weight [16, 8] has 1 of 128 entries that are NaN" in str(error)


def test_the_minus_infinities_of_a_mask_are_no_broken_weights(tmp_path: Path) -> None:
    network = Generator()
    network.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))
    assert gan(network).export(tmp_path, "masked", format="torchscript").is_dir()
    network.register_buffer("scales", torch.tensor([1.0, torch.inf]))
    assert refusal(gan(network), tmp_path / "other").reason is Reason.BAD_WEIGHTS


class Encoder(nn.Module):
    def __init__(self, returns: str = "tuple") -> None:
        super().__init__()
        self.layer = nn.Linear(16, 8)
        self.returns = returns

    def forward(self, x: Tensor) -> Any:
        mu, spread = self.layer(x.flatten(1)).chunk(2, dim=1)
        return {"mu": mu, "s": spread} if self.returns == "dict" else (mu, spread)


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 16)

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.layer(z)
        return out.reshape(-1, 1, 4, 4)


def vae(encoder: Any, decoder: Any = None, **changed: Any) -> Vae:
    known: dict[str, Any] = {"posterior": "mean_logvar", "observation": Gaussian(0.1), "latent_shape": (4,)}
    return Vae(encoder, decoder or Decoder(), **{**known, "data": IMAGE, "license": "MIT", **changed})


BINARY = {"data": Image(1, 4, 4, levels=2, data_range=(0, 1)), "observation": Bernoulli("probabilities")}


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        (lambda: vae(Encoder("dict")), "outputs={'mean': ..., 'log_variance': ...}"),
        (lambda: vae(Encoder(), posterior="mean_std"), "These are logarithms: say posterior='mean_logvar'"),
        (lambda: vae(Encoder(), **BINARY), "These are logits: say 'logits'"),
        (lambda: vae(Encoder(), latent_shape=(3,)), "rows of shape [4], not [3]"),
        (lambda: gan(Network(Generator(), layout="flat")), "rows of shape [1, 4, 4], not [16]"),
        (lambda: gan(Network(Generator(), inputs={"latent": "z"})), "'z'"),
        (lambda: gan(Network(Generator(), inputs={"noise": "z"})), "no value 'noise' to rename"),
        (lambda: gan(Generator(), latent_shape=(9,)), "layout='flat'"),
        (lambda: gan(Generator(), conditions=(ClassCondition("label", 10),)), "positional arguments"),
        (lambda: diffusion(Denoiser(), data=Image(3, 4, 4, levels=17, data_range=(0, 1))), "layout="),
        (lambda: gan(Generator(), license=""), "license='MIT'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_specification_is_refused_with_the_line_to_write(
    tmp_path: Path, model: Any, shown: str
) -> None:
    assert shown in str(refusal(model(), tmp_path))


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 16)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = x + self.table(t).reshape(-1, 1, 4, 4)
        return out


def test_an_embedded_time_asks_for_whole_steps(tmp_path: Path) -> None:
    assert "time_dtype='int64'" in str(refusal(diffusion(Embedded()), tmp_path))


class Scorer(nn.Module):
    """Logits from the symbols themselves (``own``), those before, or all of them."""

    def __init__(self, sees: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(6, 5)
        self.sees = sees

    def forward(self, tokens: Tensor) -> Tensor:
        x: Tensor = self.table(tokens)
        if self.sees == "all":
            x = x + x.mean(1, keepdim=True)
        if self.sees == "before":
            x = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1].cumsum(1)], dim=1)
        if self.sees == "after":
            x = torch.cat([x[:, 1:].flip(1).cumsum(1).flip(1), torch.zeros_like(x[:, :1])], dim=1)
        return x


def scorer(sees: str, begin: Any) -> Autoregressive:
    data = Image(1, 4, 4, levels=5)
    return Autoregressive(Scorer(sees), "raster", 5, begin=begin, data=data, license="MIT")


@pytest.mark.parametrize(
    ("sees", "begin", "shown"),
    [
        ("own", "none", "type A"),
        ("all", BeginSymbol(5), "mask its attention (is_causal)"),
        ("after", "none", "Its order is another"),
    ],
)
def test_a_network_that_sees_what_it_should_predict_is_refused(
    tmp_path: Path, sees: str, begin: Any, shown: str
) -> None:
    error = refusal(scorer(sees, begin), tmp_path, format="torchscript")
    assert error.reason is Reason.WRONG_OUTPUT
    assert shown in str(error)


@pytest.mark.parametrize(("sees", "begin"), [("before", "none"), ("own", BeginSymbol(5))])
def test_a_causal_network_is_taken(tmp_path: Path, sees: str, begin: Any) -> None:
    assert scorer(sees, begin).export(tmp_path, "causal", format="torchscript").is_dir()


def test_a_version_that_exists_is_kept(tmp_path: Path) -> None:
    model = gan(Generator())
    assert model.export(tmp_path, "g", format="torchscript").name == "1"
    assert model.export(tmp_path, "g", format="torchscript").name == "2"
    with pytest.raises(Exception, match="versions do not change once published"):
        model.export(tmp_path, "g", version=2, format="torchscript")
    assert model.export(tmp_path, "g", version=2, replace=True, format="torchscript").name == "2"
