"""A torch module made ready for export and given back as it was: evaluation mode, float32, CPU."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from export.package.errors import PackageError, Reason

Say = Callable[[str], None]


@contextmanager
def prepared(name: str, module: nn.Module, say: Say = lambda note: None) -> Iterator[nn.Module]:
    """``module`` of component ``name`` in evaluation mode while the block runs; what changes is said.

    One on another device or in another precision is copied. Raises PackageError: BAD_WEIGHTS (NaN, infinity),
    TRAINING_MODE (a layer that normalises by the batch in evaluation mode too).
    """
    module = unwrapped(module)
    if _moved(module):
        say(f"{name}: copied to the CPU in float32")
        module = copy.deepcopy(module).to("cpu", torch.float32)
    training = {layer: layer.training for layer in module.modules()}
    wanted = {weight: weight.requires_grad for weight in module.parameters()}
    if any(training.values()):
        say(f"{name}: was in training mode{_shown(module)}; exported in evaluation mode")
    check_weights(name, module)
    check_layers(name, module)
    try:
        yield module.eval().requires_grad_(False)
    finally:
        for layer, mode in training.items():
            layer.training = mode
        for weight, gradient in wanted.items():
            weight.requires_grad_(gradient)


def unwrapped(module: nn.Module) -> nn.Module:
    """Without torch.compile and data-parallel wrappers."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _moved(module: nn.Module) -> bool:
    tensors = [*module.parameters(), *module.buffers()]
    return any(
        t.device.type != "cpu" or (t.is_floating_point() and t.dtype != torch.float32) for t in tensors
    )


def _shown(module: nn.Module) -> str:
    """The layers that behave otherwise in training, counted: " (2 Dropout, 3 BatchNorm2d)"."""
    kinds = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm, nn.RReLU)
    found = Counter(type(layer).__name__ for layer in module.modules() if isinstance(layer, kinds))
    return f" ({', '.join(f'{count} {kind}' for kind, count in found.items())})" if found else ""


def check_weights(name: str, module: nn.Module) -> None:
    """Every weight is a finite number (BAD_WEIGHTS); masks of attention may hold minus infinity."""
    for key, value in (*module.named_parameters(), *module.named_buffers()):
        if value.is_floating_point() and not torch.isfinite(value).all() and not _is_mask(value):
            wrong = int((~torch.isfinite(value)).sum())
            raise PackageError(
                Reason.BAD_WEIGHTS,
                name,
                f"{key} {list(value.shape)} has {wrong} of {value.numel()} entries that are NaN or infinite",
                "Load the last checkpoint before training diverged",
            )


def _is_mask(values: Tensor) -> bool:
    """As ``export.assemble.onnx_checks.is_mask``."""
    if values.isnan().any():
        return False
    return values.numel() == 1 or bool(((values == 0) | (values == -torch.inf)).all())


def check_layers(name: str, module: nn.Module) -> None:
    """No layer normalises by the batch's own statistics, which would make rows depend on neighbours."""
    for key, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
            raise PackageError(
                Reason.TRAINING_MODE,
                name,
                f"{key} ({type(layer).__name__}) keeps no running statistics, so that it normalises by the "
                f"batch in evaluation mode too, and a request's answer would depend on its neighbours",
                "Train with track_running_stats=True, or replace it by GroupNorm or InstanceNorm",
            )
