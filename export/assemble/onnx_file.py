"""A component from an ONNX file: checked, its rows made dynamic, adapted, written with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch

from export.adapt.graph import GraphError, adapt_graph, input_names
from export.adapt.steps import Cast, apply_all
from export.adapt.wiring import Wire, Wiring
from export.assemble.made import Made, Order
from export.assemble.onnx_checks import check_graph
from export.assemble.onnx_weights import copy_weights
from export.graph.onnx import strip
from export.graph.save import save_onnx
from export.model.base import Part
from export.model.network import Graph
from export.package.errors import PackageError, Reason
from export.package.graphs import GraphTensor, read_graph, tensors_of
from export.package.seeded import seeded_inputs
from export.package.verify import ROWS, Arrays, Run

VERIFIED_ROWS = max(ROWS)


def onnx_component(name: str, part: Part, order: Order) -> Made:
    """Write the component; raises PackageError: UNREADABLE_GRAPH, BAD_SOURCE, BAD_WEIGHTS, TRAINING_MODE."""
    assert isinstance(part.network, Graph)
    path = part.network.file
    _check_stated(part.network)
    declared = read_graph(path)
    tensors = {tensor.name: tensor for tensor in (*declared.inputs, *declared.outputs)}
    model = onnx.load(path, load_external_data=False)
    check_graph(name, path, model)
    wiring = _typed(part.wiring, tensors, path)
    fixed = _fixed_rows(declared.inputs)
    if fixed:
        order.say(
            f"{name}: its batch is fixed at {fixed}; made dynamic, and compared with the file run that way"
        )
        _free_rows(model)
    source = _reference(path, wiring, fixed)
    try:
        adapted = adapt_graph(model, wiring)
    except GraphError as error:
        raise PackageError(Reason.BAD_SPECIFICATION, path, str(error), "Correct the specification") from error
    strip(adapted)
    weights = copy_weights(adapted, path.parent, order.folder, name)
    written = save_onnx(adapted, order.folder, f"{name}.onnx")
    arrays = seeded_inputs(order.spec, name, VERIFIED_ROWS)
    files = tuple(dict.fromkeys([*written, *weights]))
    entry, doubt = wiring.component("onnx", f"{name}.onnx"), _doubt(fixed, wiring)
    entry["precision"] = _precision(model)
    return Made(name, order.folder, files, entry, source, arrays, doubt)


def _check_stated(network: Graph) -> None:
    for name, source in network.outputs.items():
        if isinstance(source, int):
            raise PackageError(
                Reason.BAD_SPECIFICATION,
                network.file,
                f"outputs.{name} is the place {source}, but the outputs of an ONNX graph have names",
                f"Say  outputs: {{{name}: NAME}}",
            )


def _typed(wiring: Wiring, tensors: Mapping[str, GraphTensor], path: Path) -> Wiring:
    """Casts between the package's dtypes and the graph's, where both mean the same."""
    inputs = tuple(_typed_input(wire, tensors.get(_name(wire)), path) for wire in wiring.inputs)
    outputs = tuple(_typed_output(wire, tensors.get(_name(wire))) for wire in wiring.outputs)
    return Wiring(inputs, outputs)


def _typed_input(wire: Wire, tensor: GraphTensor | None, path: Path) -> Wire:
    given = "float32" if wire.steps and wire.dtype == "int64" and _becomes_real(wire) else wire.dtype
    if tensor is None or tensor.dtype == given:
        return wire
    whole = tensor.dtype in ("int64", "int32")
    if wire.name == "t" and whole:
        raise PackageError(
            Reason.BAD_SPECIFICATION,
            path,
            f"the graph's input {tensor.name!r} takes whole numbers ({tensor.dtype})",
            "Add  time_dtype: int64",
        )
    return replace(wire, steps=(*wire.steps, Cast(tensor.dtype)))


def _becomes_real(wire: Wire) -> bool:
    """Whether ids leave as one-hot or as levels."""
    value = apply_all(
        wire.steps, torch.zeros((1, *(1 if isinstance(s, str) else s for s in wire.shape))).long()
    )
    return value.is_floating_point()


def _typed_output(wire: Wire, tensor: GraphTensor | None) -> Wire:
    if tensor is None or tensor.dtype == "float32":
        return wire
    return replace(wire, steps=(Cast("float32"), *wire.steps))


def _fixed_rows(inputs: tuple[GraphTensor, ...]) -> int:
    """The number of rows that the graph insists on; 0: any."""
    sizes = {tensor.shape[0] for tensor in inputs if tensor.shape}
    return max((size for size in sizes if size is not None), default=0)


def _precision(model: onnx.ModelProto) -> str:
    """The coarsest of its weights."""
    kinds = {tensor.data_type for tensor in tensors_of(model.graph)}
    if onnx.TensorProto.BFLOAT16 in kinds:
        return "bfloat16"
    return "float16" if onnx.TensorProto.FLOAT16 in kinds else "float32"


def _doubt(fixed: int, wiring: Wiring) -> tuple[str, str] | None:
    """What is to blame where a graph whose batch was fixed fails with another."""
    if not fixed:
        return None
    axes = ", ".join(f"{_name(wire)!r}: {{0: 'rows'}}" for wire in (*wiring.inputs, *wiring.outputs))
    return (
        f"its batch is fixed at {fixed}, also inside, so that it could not be made dynamic: ",
        f"Export it again with torch.onnx.export(..., dynamic_axes={{{axes}}})",
    )


def _free_rows(model: onnx.ModelProto) -> None:
    held = set(input_names(model))
    for value in (*(v for v in model.graph.input if v.name in held), *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims:
            dims[0].Clear()
            dims[0].dim_param = "rows"
    model.graph.ClearField("value_info")


def _name(wire: Wire) -> str:
    return wire.source if isinstance(wire.source, str) else wire.name


def _reference(path: Path, wiring: Wiring, fixed: int) -> Run:
    """The file as it is, with the specification's steps in torch; in its own number of rows where fixed."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises types of its own
        raise PackageError(
            Reason.UNREADABLE_GRAPH,
            path,
            f"the runtime refuses it: {str(error).splitlines()[0]}",
            "Export it again",
        ) from error
    names = [_name(wire) for wire in wiring.outputs]

    def run(arrays: Arrays) -> Arrays:
        given = {
            _name(w): apply_all(w.steps, torch.from_numpy(np.ascontiguousarray(arrays[w.name])))
            for w in wiring.inputs
        }
        rows = len(next(iter(given.values())))
        block = fixed or rows
        raw = [
            session.run(names, _block({k: v.numpy() for k, v in given.items()}, start, block))
            for start in range(0, rows, block)
        ]
        several = [np.concatenate(parts)[:rows] for parts in zip(*raw, strict=True)]
        return {
            wire.name: apply_all(wire.steps, torch.from_numpy(value)).numpy()
            for wire, value in zip(wiring.outputs, several, strict=True)
        }

    return run


def _block(arrays: Arrays, start: int, rows: int) -> dict[str, np.ndarray]:
    """``rows`` rows from ``start`` on; what is missing at the end repeats the first one."""
    taken = {name: value[start : start + rows] for name, value in arrays.items()}
    return {
        name: np.concatenate([value, np.repeat(arrays[name][:1], rows - len(value), axis=0)])
        for name, value in taken.items()
    }
