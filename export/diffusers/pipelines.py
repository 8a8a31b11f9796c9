"""What the code of a pipeline states that no file of its folder does: the range of pixels, and its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LATENT_TEXT = ("vae", "text_encoder", "tokenizer")


@dataclass(frozen=True)
class Pipeline:
    """``denoiser``: the name of its folder; ``needs``: further folders of networks and tokenizers.

    Pipelines give 8-bit images, and take pixels in [-1, 1] (or [0, 1] where the scheduler says so).
    ``steps``: of a call that names none. ``scheduler``: settings that the pipeline puts right in whatever
    scheduler it is given.
    """

    denoiser: str
    steps: int
    needs: tuple[str, ...] = ()
    scheduler: Mapping[str, Any] = field(default_factory=dict)


PIPELINES: dict[str, Pipeline] = {
    "DDPMPipeline": Pipeline("unet", 1000),
    "DDIMPipeline": Pipeline("unet", 50),
    "PNDMPipeline": Pipeline("unet", 50),
    "ScoreSdeVePipeline": Pipeline("unet", 2000),
    "LDMPipeline": Pipeline("unet", 50, ("vqvae",)),
    "DiTPipeline": Pipeline("transformer", 50, ("vae",)),
    "StableDiffusionPipeline": Pipeline("unet", 50, LATENT_TEXT, {"steps_offset": 1, "clip_sample": False}),
}
LEVELS, RANGE = 256, (-1.0, 1.0)
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")  # no part of p(x): left out, and said
