"""A diffusion model of closed form in an engine of its own, over a lane of any kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from export.package.schema import Component, ModelSpec
from serving.engine.batched_lane import BatchedLane
from serving.engine.device_lane import DeviceLane
from serving.engine.engine import Engine
from serving.engine.messages import ModelKey
from serving.engine.model import LoadedModel, ServedModel
from serving.families.diffusion.denoiser import COMPONENT, TABLE
from serving.families.diffusion.family import DiffusionFamily
from serving.families.request import Operation, Request
from serving.families.result import Result
from serving.families.rows import BatchedTable
from serving.runtime.capture import use_stream
from serving.runtime.network import Binding, Network, RuntimeOptions, Tensors
from tests.analytic.diffusion.gaussian import diffusion, levels_space, package
from tests.serving.families.diffusion.networks import LABEL, Elementwise

ELEMENTS, WAIT_S = 20, 20.0
KEY = ModelKey("gaussian", 1)
CPU = torch.device("cpu")


@dataclass
class Fault:
    """What is done to the network's inputs before a run; it may raise or write NaN."""

    act: Callable[[torch.Tensor], None] = lambda x: None


class ElementwiseBinding(Binding):
    def __init__(self, inputs: Tensors, outputs: Tensors, capacity: int, fault: Fault) -> None:
        super().__init__(inputs, outputs, capacity)
        self._network, self._fault = Elementwise((ELEMENTS,)), fault

    def run(self, rows: int) -> None:
        self._fault.act(self.inputs["x"][:rows])
        answer = self._network({name: value[:rows] for name, value in self.inputs.items()})
        self.outputs["prediction"][:rows].copy_(answer["prediction"])


class ElementwiseNetwork(Network):
    runtime = "toy"

    def __init__(self, spec: Component, fault: Fault) -> None:
        super().__init__(spec, RuntimeOptions(CPU, max_rows=8))
        self._fault = fault

    def _bind(self, inputs: Tensors, outputs: Tensors, capacity: int) -> Binding:
        return ElementwiseBinding(inputs, outputs, capacity, self._fault)


@dataclass
class Made:
    engine: Engine
    lane: BatchedLane
    fault: Fault

    def results(self, requests: list[Request]) -> list[Result]:
        tickets = [self.engine.submit(KEY, request) for request in requests]
        return [ticket.result(WAIT_S) for ticket in tickets]


def made(
    kind: type[BatchedLane],
    device: torch.device = CPU,
    network: Callable[[Component, Fault], Network] = ElementwiseNetwork,
) -> Made:
    """An engine that is not started yet."""
    section = diffusion("vp", clip_range=(-1.0, 1.0), clip_default=True)
    spec = package(section, levels_space(ELEMENTS), (LABEL,))
    family, fault = DiffusionFamily(spec), Fault()
    use_stream(device)
    table = family.tables({}, 64, device)[TABLE]
    assert isinstance(table, BatchedTable)
    lane = kind(KEY, COMPONENT, network(spec.components[COMPONENT], fault))
    lane.add_table(TABLE, table)
    if isinstance(lane, DeviceLane):
        lane.prepare()
    engine = Engine(max_rows=8)
    engine.attach(ServedModel(_loaded(spec, family, device), family, {COMPONENT: lane}, {TABLE: lane}))
    return Made(engine, lane, fault)


def _loaded(spec: ModelSpec, family: DiffusionFamily, device: torch.device) -> LoadedModel:
    return LoadedModel(
        KEY, spec, "", family.capabilities(), None, "batch_invariant", None, 64, 0, "float32", str(device),
        "toy", 0, 0,
    )  # fmt: skip


def sample(method: str, rows: int, steps: int, seed: int = 5, **parameters: float) -> Request:
    labels = (np.arange(rows) % 10).astype(np.int64)
    given = {"steps": steps, **parameters}
    return Request(Operation.SAMPLE, method, given, seed, 0, rows, conditions={"label": labels})


def inpaint(rows: int) -> Request:
    data, observed = np.full((rows, ELEMENTS), 7, np.uint8), np.zeros((rows, ELEMENTS), np.bool_)
    observed[:, ::3] = True
    parameters = {"steps": 9, "jump_length": 3, "resamplings": 2}
    return Request(
        Operation.INPAINT, "repaint", parameters, 5, 0, rows,
        data=data, observed=observed, conditions={"label": np.full(rows, 10, np.int64)},
    )  # fmt: skip


def score(rows: int) -> Request:
    data, labels = np.full((rows, ELEMENTS), 3, np.uint8), np.full(rows, 10, np.int64)
    return Request(
        Operation.LIKELIHOOD, "variational_bound", {"steps": 10, "probes": 2}, 5, 0, rows,
        data=data, conditions={"label": labels},
    )  # fmt: skip
