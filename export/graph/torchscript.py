"""A torch module as TorchScript: traced, bound to no device, and without source locations."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_EPOCH = (1980, 1, 1, 0, 0, 0)  # of every entry: the same script writes the same bytes


class DeviceLiteralError(ValueError):
    """The trace names ``devices``, so it would run on no other."""

    def __init__(self, devices: list[str]) -> None:
        super().__init__(
            f"the trace holds device literals ({', '.join(devices)}): make tensors with x.new_zeros or "
            "torch.zeros_like, or trace once per device"
        )
        self.devices = devices


def export_torchscript(module: nn.Module, inputs: Mapping[str, Tensor], *, any_device: bool = True) -> bytes:
    """Trace ``module`` on example ``inputs`` (in call order); the bytes of a ``.pt`` file.

    Raises DeviceLiteralError where ``any_device`` is asked for and the trace holds a device.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module.eval(), tuple(inputs.values()), check_trace=False)  # type: ignore[no-untyped-call]
        literals = sorted(set(device_literals(traced)))
        if any_device and literals:
            raise DeviceLiteralError(literals)
        buffer = io.BytesIO()
        torch.jit.save(traced, buffer)
    return _without_locations(buffer.getvalue())


def device_literals(traced: Any) -> Iterator[str]:
    """Every device that a traced module names as a constant, such as ``cpu``."""
    yield from _literals(traced.inlined_graph.nodes())


def _literals(nodes: Any) -> Iterator[str]:
    for node in nodes:
        if node.kind() == "prim::Constant" and node.output().type().kind() == "DeviceObjType":
            yield str(node.output().toIValue())
        for block in node.blocks():
            yield from _literals(block.nodes())


def _without_locations(data: bytes) -> bytes:
    """The archive without its ``.debug_pkl`` entries, which hold paths and source of this machine.

    ``serialization_id`` is a hash of the whole archive, those entries too, and nothing reads it.
    """
    cleaned = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(cleaned, "w") as target:
        for entry in source.infolist():
            if not entry.filename.endswith((".debug_pkl", ".data/serialization_id")):
                target.writestr(zipfile.ZipInfo(entry.filename, _EPOCH), source.read(entry))
    return cleaned.getvalue()
