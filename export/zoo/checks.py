"""Are the graphs of a reference model the network that was trained? Seeded inputs, several batch sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from export.graph.onnx import Signature
from export.graph.vjp import VectorJacobian
from export.package.run_graph import open_graph
from export.package.schema import Component, Parity
from export.package.verify import Arrays, Run, verify
from export.zoo.graphs import inputs_of
from export.zoo.parts import Part

ROWS = (1, 2, 3, 8)
SEED = 1


def check_part(part: Part, network: nn.Module, path: Path, component: Component) -> Parity:
    """Compare a graph file with its module; raises PackageError (PARITY) where they differ."""
    run = open_graph(path, component)
    inputs = inputs_of(part, network, max(ROWS), SEED)
    arrays = {name: value.numpy() for name, value in inputs.items()}
    if part.kind == "cached":
        run = _stepwise(run, component)
    source = _source(part, network, inputs)
    return verify(run, source, arrays, described=f"inputs of seed {SEED}", rows=ROWS)


def _source(part: Part, network: nn.Module, inputs: dict[str, Tensor]) -> Run:
    """The network's own module as a function of named arrays."""
    module = part.of(network)
    if part.kind == "vjp":
        module = VectorJacobian(module, Signature(inputs, part.outputs), part.wrt)

    def run(arrays: Arrays) -> Arrays:
        with torch.no_grad():
            answer = module(*(torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in inputs))
        values = answer if isinstance(answer, tuple) else (answer,)
        return {name: value.numpy() for name, value in zip(part.outputs, values, strict=True)}

    return run


def _stepwise(run: Run, component: Component) -> Run:
    """A decoder fed one token at a time, as a scorer of whole rows."""

    def scorer(arrays: Arrays) -> Arrays:
        tokens = np.ascontiguousarray(arrays["tokens"])
        cache = {
            tensor.name: np.zeros((len(tokens), *map(int, tensor.row_shape)), np.float32)
            for tensor in component.inputs
            if tensor.name.startswith("past_")
        }
        steps: list[npt.NDArray[Any]] = []
        for position in range(tokens.shape[1]):
            found = run({**_step(tokens, position), **cache})
            steps.append(found["logits"])
            cache = {name: np.asarray(found[name.replace("past", "present")]) for name in cache}
        return {"logits": np.concatenate(steps, axis=1)}

    return scorer


def _step(tokens: npt.NDArray[Any], position: int) -> dict[str, npt.NDArray[Any]]:
    return {
        "tokens": tokens[:, position : position + 1],
        "seqlens_k": np.full(len(tokens), position, np.int32),
        "total_sequence_length": np.array(position + 1, np.int32),
    }


def worst(parities: list[Parity]) -> Parity:
    """One parity for a whole package."""
    return Parity(
        max_abs_error=max(parity.max_abs_error for parity in parities),
        max_rel_error=max(parity.max_rel_error for parity in parities),
        inputs=parities[0].inputs,
        batch_invariant=all(parity.batch_invariant for parity in parities),
    )
