"""Pipelines of diffusers with random weights, and the packages that ``pxserve-export`` makes of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from export.assemble.package import Target, write_model
from export.cli import main
from export.diffusers.model import Denoising
from export.diffusers.scheduler import read_scheduler
from export.model.spaces import Image
from export.zoo.networks.unet import UNet
from export.zoo.schedules import cosine_betas

diffusers: Any = import_module("diffusers")
configuration: Any = import_module("diffusers.configuration_utils")

CIFAR, DIGITS = "ddpm-cifar10-32", "digits"
# google/ddpm-cifar10-32, config.json of its unet: 35.7 million weights
ARCHITECTURE: dict[str, Any] = {
    "sample_size": 32, "in_channels": 3, "out_channels": 3, "layers_per_block": 2, "downsample_padding": 0,
    "block_out_channels": (128, 256, 256, 256), "flip_sin_to_cos": False, "freq_shift": 1,
    "norm_eps": 1e-6, "norm_num_groups": 32, "attention_head_dim": None,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip


@dataclass(frozen=True)
class Exported:
    """A pipeline, the repository with its package, and how long the export took."""

    pipeline: Any
    models: Path
    seconds: float


def quiet(pipeline: Any) -> Any:
    """Without a progress bar."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def cifar_pipeline(folder: Path, architecture: dict[str, Any] | None = None) -> Any:
    """The pipeline, saved to ``folder``."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(**(architecture or ARCHITECTURE)).eval()
    pipeline = diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler())
    pipeline.save_pretrained(folder)
    return quiet(pipeline)


def cifar(at: Path, *flags: str, architecture: dict[str, Any] | None = None) -> Exported:
    """Save and export it by the command; ``flags`` are those of the command."""
    pipeline, models = cifar_pipeline(at / CIFAR, architecture), at / "models"
    begun = time.perf_counter()
    status = main(["diffusers", str(at / CIFAR), "--to", str(models), "--license", "Apache-2.0", *flags])
    assert status == 0
    return Exported(pipeline, models, time.perf_counter() - begun)


class AsUNet(diffusers.ModelMixin, configuration.ConfigMixin):  # type: ignore[misc]
    """The zoo's digits U-Net, unconditional, as a model of diffusers."""

    @configuration.register_to_config
    def __init__(self, sample_size: int = 8, in_channels: int = 1) -> None:
        super().__init__()
        self.network = UNet(conditional=False)
        nn.init.normal_(self.network.conv_out.weight, std=0.02)  # zero at the start of its training

    def forward(self, x: Tensor, t: Tensor) -> Any:
        """As the pipeline calls it: one t for all rows."""
        return SimpleNamespace(sample=self.network(x, t.expand(len(x)).float()))


def digits(at: Path) -> Exported:
    """The same network and scheduler as a pipeline and as a package."""
    torch.manual_seed(0)
    network = AsUNet().eval()
    scheduler = diffusers.DDIMScheduler(trained_betas=cosine_betas().tolist())
    scheduler.save_pretrained(at / "digits-scheduler")
    data = Image(1, 8, 8, levels=17, data_range=(-1.0, 1.0))
    model = Denoising(network.network, read_scheduler(at / "digits-scheduler"), data=data, license="MIT")
    begun = time.perf_counter()
    write_model(model, Target(at / "models", DIGITS), lambda what, part: None)
    return Exported(
        quiet(diffusers.DDIMPipeline(network, scheduler)), at / "models", time.perf_counter() - begun
    )
