"""The zoo's graphs with something done to their inputs or outputs: the networks behind mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.adapt.graph import adapt_graph
from export.adapt.steps import Constant, Reshape, Step, Transpose
from export.adapt.wiring import Wire, Wiring
from export.adapt.writer import NodeWriter
from export.model import Graph
from export.zoo.graphs import committed, read_committed
from export.zoo.registry import ENTRIES
from export.zoo.schedules import cosine_betas

Steps = Mapping[str, tuple[Step, ...]]


@dataclass(frozen=True)
class Operator(Step):
    """One ONNX operator, with numbers as its further inputs."""

    kind: str
    numbers: tuple[float, ...] = ()

    def apply(self, x: object, *constants: object) -> object:  # type: ignore[override]
        """Only written."""
        raise NotImplementedError

    def write(self, writer: NodeWriter, x: str) -> str:
        """The node."""
        return writer.node(self.kind, [x, *(writer.number(number) for number in self.numbers)])

    def constants(self) -> tuple[Constant, ...]:
        """None."""
        return ()


EXP, NEG, SIGMOID, SOFTMAX = (Operator(kind) for kind in ("Exp", "Neg", "Sigmoid", "Softmax"))
SHUFFLE = (Reshape((2, 2, 4, 4)), Transpose((0, 3, 1, 4, 2)), Reshape((1, 8, 8)))  # blocks to an image
UNSHUFFLE = (Reshape((4, 2, 4, 2)), Transpose((0, 2, 4, 1, 3)), Reshape((4, 4, 4)))


@cache
def proto(name: str, component: str) -> onnx.ModelProto:
    """A trained network as its graph."""
    return onnx.load_from_string(read_committed(committed(ENTRIES[name], component)))


def graph(folder: Path, name: str, component: str, **steps: tuple[Step, ...]) -> Graph:
    """The zoo's graph as a file, with steps before an input or after an output of that name."""
    model = proto(name, component)
    changed = adapt_graph(model, _wiring(model, steps)) if steps else model
    return saved(folder, component, changed)


def saved(folder: Path, component: str, model: onnx.ModelProto) -> Graph:
    """A graph as a file."""
    path = folder / f"{component}.onnx"
    onnx.save(model, path)
    return Graph(path)


def _wiring(model: onnx.ModelProto, steps: Steps) -> Wiring:
    def wires(values: list[onnx.ValueInfoProto], side: str) -> tuple[Wire, ...]:
        return tuple(_wire(value, steps.get(f"{side}_{value.name}", ())) for value in values)

    return Wiring(wires(list(model.graph.input), "before"), wires(list(model.graph.output), "after"))


def _wire(value: onnx.ValueInfoProto, steps: tuple[Step, ...]) -> Wire:
    kind = value.type.tensor_type
    shape = tuple(dim.dim_param or dim.dim_value for dim in kind.shape.dim[1:])
    dtype = {1: "float32", 7: "int64"}[kind.elem_type]
    if {*SHUFFLE, *UNSHUFFLE} & {*steps}:
        shape = (4, 4, 4)
    return Wire(value.name, dtype, shape, steps, source=value.name)


VELOCITY = (
    ("Cast", ["t"], "whole"),
    ("Gather", ["alphas", "whole"], "alpha"),
    ("Gather", ["sigmas", "whole"], "sigma"),
    ("Mul", ["sigma", "noise"], "part"),
    ("Sub", ["x", "part"], "left"),
    ("Div", ["left", "alpha"], "clean"),
    ("Mul", ["alpha", "noise"], "first"),
    ("Mul", ["sigma", "clean"], "second"),
    ("Sub", ["first", "second"], "velocity"),
)


def predicts(folder: Path, what: str) -> Graph:
    """The noise predictor as one of x0 = (x - sigma e) / alpha or of v = alpha e - sigma x0."""
    model = onnx.ModelProto()
    model.CopyFrom(proto("digits-diffusion", "denoiser"))
    kept = np.cumprod(1.0 - cosine_betas())
    for name, table in (("alphas", np.sqrt(kept)), ("sigmas", np.sqrt(1.0 - kept))):
        values = table.astype(np.float32).reshape(-1, 1, 1, 1)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    for node in model.graph.node:
        for place, output in enumerate(node.output):
            node.output[place] = "noise" if output == "prediction" else output
    for kind, inputs, output in VELOCITY:
        attributes: dict[str, Any] = {"to": onnx.TensorProto.INT64} if kind == "Cast" else {}
        model.graph.node.append(helper.make_node(kind, inputs, [output], **attributes))
    last = "clean" if what == "sample" else "velocity"
    model.graph.node.append(helper.make_node("Identity", [last], ["prediction"]))
    return saved(folder, "denoiser", model)


def untrained_null(folder: Path) -> Graph:
    """The null row of the label table as it was before training."""
    model = onnx.ModelProto()
    model.CopyFrom(proto("digits-diffusion", "denoiser"))
    for tensor in model.graph.initializer:
        if list(tensor.dims) == [11, 128]:
            table = numpy_helper.to_array(tensor).copy()
            table[10] = np.random.default_rng(0).standard_normal(128)
            tensor.CopyFrom(numpy_helper.from_array(table, tensor.name))
    return saved(folder, "denoiser", model)


def shifted_labels(folder: Path) -> Graph:
    """Trained on labels that are one more: label 9 stands for the digit 0; the null stays."""
    model = onnx.ModelProto()
    model.CopyFrom(proto("digits-diffusion", "denoiser"))
    for tensor in model.graph.initializer:
        if list(tensor.dims) == [11, 128]:
            table = numpy_helper.to_array(tensor).copy()
            table[:10] = np.roll(table[:10], -1, axis=0)
            tensor.CopyFrom(numpy_helper.from_array(table, tensor.name))
    return saved(folder, "denoiser", model)


def odds(folder: Path, *last: Step) -> Graph:
    """The VAE's own law of "brighter than level 7", whose log-odds are (mean - x) / scale."""
    model = onnx.ModelProto()
    model.CopyFrom(proto("digits-vae", "decoder"))
    writer = NodeWriter("odds")
    border = writer.node("Sub", ["mean", writer.number(7.5 / 8 - 1)])
    value = writer.node("Mul", [border, writer.node("Exp", [writer.node("Neg", ["log_scale"])])])
    for step in last:
        value = step.write(writer, value)
    writer.node("Identity", [value], "logits")
    model.graph.node.extend(writer.nodes)
    model.graph.initializer.extend(writer.initializers)
    image = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["rows", 1, 8, 8])
    del model.graph.output[:]
    model.graph.output.append(image)
    return saved(folder, "decoder", model)
