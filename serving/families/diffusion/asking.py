"""Network evaluations outside the denoising loop: rows of any levels, in calls that others share."""

from __future__ import annotations

from collections.abc import Generator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from serving.families.diffusion.denoiser import COMPONENT, Denoiser
from serving.families.diffusion.process import Floats, Levels
from serving.families.request import Array
from serving.families.rows import Call, Tensors, Yield

Asked = Generator[Yield, Tensors, torch.Tensor]
LARGEST_CALL = 2**21  # elements of x in one call


def predictions(
    denoiser: Denoiser, x: torch.Tensor, levels: Levels, conditions: Mapping[str, Array]
) -> Asked:
    """Outputs [rows, *shape] for states ``x`` [rows, *shape] float32 at ``levels`` [rows]."""
    found = yield from whole_outputs(denoiser, x, levels, conditions)
    return found[:, : denoiser.elements].reshape(x.shape)


def whole_outputs(
    denoiser: Denoiser, x: torch.Tensor, levels: Levels, conditions: Mapping[str, Array]
) -> Asked:
    """The same flattened, with what follows the prediction: [rows, elements or twice as many]."""
    inputs = network_inputs(denoiser, x, levels, conditions)
    step = max(1, LARGEST_CALL // denoiser.elements)
    parts = []
    for first in range(0, len(x), step):
        answer = yield Call(COMPONENT, {name: value[first : first + step] for name, value in inputs.items()})
        parts.append(answer["prediction"].flatten(1).clone())
    return torch.cat(parts)


def denoised(
    denoiser: Denoiser, x: torch.Tensor, levels: Levels, conditions: Mapping[str, Array], clip: bool
) -> Asked:
    """Estimates of x0 [rows, *shape], clipped to the package's range where ``clip``."""
    output = yield from predictions(denoiser, x, levels, conditions)
    return data_estimate(denoiser, x, levels, output, clip)


def data_estimate(
    denoiser: Denoiser, x: torch.Tensor, levels: Levels, output: torch.Tensor, clip: bool
) -> torch.Tensor:
    """The network's ``output`` [rows, *shape] as estimates of x0."""
    p, q = denoiser.process.prediction(levels)
    x0 = per_row(p, x) * x + per_row(q, x) * output
    if clip and denoiser.diffusion.clip_range is not None:
        x0 = x0.clamp(*denoiser.diffusion.clip_range)
    return x0


def network_inputs(
    denoiser: Denoiser, x: torch.Tensor, levels: Levels, conditions: Mapping[str, Array]
) -> dict[str, torch.Tensor]:
    """``x`` (scaled), ``t`` and the conditions as the graph takes them."""
    scale = denoiser.process.input_scale(levels)
    time = np.rint(levels.time) if denoiser.process.integer_time else levels.time
    dtype = torch.int64 if denoiser.process.integer_time else torch.float32
    inputs = {"x": x * per_row(scale, x), "t": torch.from_numpy(time).to(dtype)}
    return inputs | {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in conditions.items()}


def per_row(values: Floats, x: torch.Tensor) -> torch.Tensor:
    """float64 [rows] as float32 [rows, 1, ...] beside ``x``."""
    return torch.from_numpy(np.asarray(values, np.float32)).reshape(-1, *[1] * (x.dim() - 1))


def squares(x: torch.Tensor) -> NDArray[np.float64]:
    """Element-wise squares in float64 [rows, elements]."""
    values = x.detach().double().cpu().numpy().reshape(len(x), -1)
    return np.asarray(values * values, np.float64)
