"""The digits network in the usual pipeline: diffusers' DDIM scheduler around a torch module.

Imported by the processes of other servers, so it knows nothing of ours but the network and its schedule.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from export.package.read import read_package
from export.package.schema import VpSchedule
from export.zoo.registry import ENTRIES

NAME, STEPS, LEVELS = "digits-diffusion", 50, 17
PACKAGE = Path("models") / NAME / "1"
BATCH, WAIT_S = 16, 0.005  # what the other servers may gather, and how long they wait for it
THREADS = 2

Levels = NDArray[np.uint8]


class Pipeline:
    """Noise [rows, 1, 8, 8] and classes [rows] to levels [rows, 1, 8, 8], 50 deterministic steps."""

    def __init__(self) -> None:
        torch.set_num_threads(int(os.environ.get("PEER_THREADS", THREADS)))
        section = read_package(PACKAGE).spec.diffusion
        assert section is not None
        assert isinstance(section.schedule, VpSchedule)
        library: Any = import_module("diffusers")
        self.scheduler = library.DDIMScheduler(
            trained_betas=list(section.schedule.betas), prediction_type="epsilon",
            clip_sample=True, clip_sample_range=1.0, timestep_spacing="trailing",
        )  # fmt: skip
        entry = ENTRIES[NAME]
        self.network = entry.network().eval().requires_grad_(False)
        self.network.load_state_dict(load_file(entry.weights))

    @torch.inference_mode()
    def __call__(self, noise: NDArray[np.float32], labels: NDArray[np.int64]) -> Levels:
        """All rows at once."""
        x, label = torch.from_numpy(np.ascontiguousarray(noise)), torch.from_numpy(labels)
        self.scheduler.set_timesteps(STEPS)
        for t in self.scheduler.timesteps:
            predicted = self.network(x, t.float().expand(len(x)), label)
            x = self.scheduler.step(predicted, t, x, use_clipped_model_output=True).prev_sample
        levels: Levels = ((x + 1) * 8).round().clamp(0, LEVELS - 1).to(torch.uint8).numpy()
        return levels
