"""What an ONNX graph must not hold: training mode, random numbers, weights that are not numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from export.package.errors import PackageError, Reason
from export.package.graphs import tensors_of

RANDOM = (
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
)
_REAL: dict[int, np.dtype[Any]] = {
    onnx.TensorProto.FLOAT: np.dtype("<f4"),
    onnx.TensorProto.DOUBLE: np.dtype("<f8"),
    onnx.TensorProto.FLOAT16: np.dtype("<f2"),
}
PIECE = 1 << 22  # numbers looked at in one go


def check_graph(name: str, path: Path, model: onnx.ModelProto) -> None:
    """Raises PackageError: TRAINING_MODE (dropout, batch statistics, random numbers), BAD_WEIGHTS."""
    for node in nodes_of(model.graph):
        training = _trains(node, model.graph)
        if training or node.op_type in RANDOM:
            raise PackageError(
                Reason.TRAINING_MODE,
                path,
                f"components.{name}: node {node.name or node.output[0]!r} ({node.op_type}) "
                + ("is in training mode" if training else "draws random numbers"),
                "Call module.eval() before torch.onnx.export; random numbers are the server's work: give "
                "them as inputs",
            )
    check_weights(name, path, model)


def check_weights(name: str, path: Path, model: onnx.ModelProto) -> None:
    """Every weight is there and a finite number; weights outside the file are mapped, not read at once."""
    for tensor in tensors_of(model.graph):
        for piece in _pieces(tensor, path):
            if not np.isfinite(piece).all() and not is_mask(piece):
                wrong = int((~np.isfinite(piece)).sum())
                raise PackageError(
                    Reason.BAD_WEIGHTS,
                    path,
                    f"components.{name}: weight {tensor.name!r} {list(tensor.dims)} has {wrong} entries that "
                    f"are NaN or infinite",
                    "Load the last checkpoint before training diverged, and export again",
                )


def is_mask(values: npt.NDArray[np.floating]) -> bool:
    """Whether these are no weights: one constant, or zeros and minus infinities that are added to scores."""
    if np.isnan(values).any():
        return False
    return values.size == 1 or bool(((values == 0) | (values == -np.inf)).all())


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node of a graph and of the graphs inside its nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from nodes_of(inner)


def _trains(node: onnx.NodeProto, graph: onnx.GraphProto) -> bool:
    if node.op_type == "BatchNormalization":
        return any(a.name == "training_mode" and a.i == 1 for a in node.attribute)
    if node.op_type != "Dropout" or len(node.input) < 3 or not node.input[2]:
        return False
    held = {tensor.name: tensor for tensor in graph.initializer}
    constants = {n.output[0]: n.attribute[0].t for n in graph.node if n.op_type == "Constant" and n.attribute}
    flag = held.get(node.input[2]) or constants.get(node.input[2])
    return flag is not None and bool(numpy_helper.to_array(flag).any())


def _pieces(tensor: onnx.TensorProto, path: Path) -> Iterator[npt.NDArray[np.floating]]:
    dtype = _REAL.get(tensor.data_type)
    if dtype is None:
        return
    if not uses_external_data(tensor):
        yield numpy_helper.to_array(tensor)
        return
    whole = _mapped(tensor, path, dtype)
    for start in range(0, len(whole), PIECE):
        yield whole[start : start + PIECE]


def _mapped(tensor: onnx.TensorProto, path: Path, dtype: np.dtype) -> npt.NDArray[np.floating]:
    info = ExternalDataInfo(tensor)
    file = path.parent / info.location
    if not file.is_file():
        raise PackageError(
            Reason.BAD_SOURCE,
            file,
            f"{path.name} keeps the weight {tensor.name!r} in this file, which is not there",
            "Put it beside the graph: both were written together",
        )
    count, offset = int(np.prod(tensor.dims, dtype=np.int64)), info.offset or 0
    if file.stat().st_size < offset + count * dtype.itemsize:
        raise PackageError(
            Reason.BAD_SOURCE, file, f"it ends before the weight {tensor.name!r}", "Copy the file again"
        )
    return np.memmap(file, dtype, "r", offset, (count,)) if count else np.empty(0, dtype)
