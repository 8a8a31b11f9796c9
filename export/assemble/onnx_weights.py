"""Weights beside an ONNX graph: copied into the package under names of their own, piece by piece."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from export.package.graphs import tensors_of


def copy_weights(model: onnx.ModelProto, source: Path, folder: Path, component: str) -> list[str]:
    """Copy every file that ``model`` reads from ``source`` to ``folder`` as ``COMPONENT.FILE``; their names.

    ``model`` reads the copies from then on. Nothing is loaded into memory.
    """
    copied: dict[str, str] = {}
    for tensor in tensors_of(model.graph):
        if not uses_external_data(tensor):
            continue
        location = ExternalDataInfo(tensor).location
        if location not in copied:
            copied[location] = f"{component}.{location.replace('/', '_')}"
            shutil.copyfile(source / location, folder / copied[location])
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = copied[location]
    return sorted(copied.values())
