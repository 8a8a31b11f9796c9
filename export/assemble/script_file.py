"""A component from a TorchScript file: opened on the CPU, tried, and traced behind the package's names."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from export.adapt.module import Adapted
from export.assemble.made import Made, Order
from export.assemble.modules import EXAMPLE_ROWS, VERIFIED_ROWS, run_module, tensors
from export.assemble.prepare import check_layers, check_weights
from export.assemble.traced import write_script
from export.assemble.trial import trial
from export.model.base import Part
from export.model.network import Graph
from export.package.errors import PackageError, Reason
from export.package.graphs import GraphInfo, GraphTensor
from export.package.seeded import seeded_inputs


def try_script(name: str, part: Part, order: Order) -> None:
    """Open the file and run it once; TorchScript is code: the caller trusts it.

    Raises PackageError: BAD_SOURCE, BAD_WEIGHTS, TRAINING_MODE, WRONG_OUTPUT.
    """
    assert isinstance(part.network, Graph)
    network = open_script(part.network.file)
    check_weights(name, network)
    check_layers(name, network)
    inputs = tensors(seeded_inputs(order.spec, name, EXAMPLE_ROWS), EXAMPLE_ROWS)
    trial(name, network, part.wiring, inputs)


def script_component(name: str, part: Part, order: Order) -> Made:
    """Write the component (UNSUPPORTED_NETWORK)."""
    assert isinstance(part.network, Graph)
    adapted = Adapted(open_script(part.network.file), part.wiring).eval()
    arrays = seeded_inputs(order.spec, name, VERIFIED_ROWS)
    inputs = tensors(arrays, EXAMPLE_ROWS)
    file, entry = write_script(name, adapted, part.wiring, inputs, order)
    source = run_module(adapted, list(inputs), [wire.name for wire in part.wiring.outputs])
    return Made(name, order.folder, (file,), entry, source, arrays)


def script_info(file: Path) -> GraphInfo:
    """The names of its arguments, and the places of what it gives back; it declares no more (BAD_SOURCE)."""
    forward: Any = open_script(file).forward
    schema = forward.schema
    arguments = tuple(GraphTensor(a.name, "", None) for a in schema.arguments[1:])
    returned = schema.returns[0].type
    places = len(returned.elements()) if returned.kind() == "TupleType" else 1
    known = returned.kind() in ("TupleType", "TensorType")
    outputs = tuple(GraphTensor(str(place), "", None) for place in range(places)) if known else ()
    return GraphInfo(arguments, outputs, ())


def open_script(file: Path) -> nn.Module:
    """The module on the CPU in float32, in evaluation mode (BAD_SOURCE)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: nn.Module = torch.jit.load(str(file), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise PackageError(
            Reason.BAD_SOURCE, file, f"torch cannot open it: {str(error).splitlines()[0]}", "Save it again"
        ) from error
    return module.eval().float()
