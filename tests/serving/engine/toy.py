"""A model of a few lines: a table whose rows halve towards the network's answer, and one-run calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from export.package.schema import Component, DataSpace, ModelSpec, TensorSpec
from serving.engine.batched_lane import BatchedLane
from serving.engine.engine import Engine
from serving.engine.messages import ModelKey
from serving.engine.model import LoadedModel, ServedModel
from serving.families.capability import Capability, Method, Parameter
from serving.families.request import Array, Operation, Request
from serving.families.result import BaseMeasure, LikelihoodKind, Sampled, SampleKind, Scored
from serving.families.rows import BatchedTable, Call, Loop, Program, Slots, Table, Tensors
from serving.runtime.network import Binding, Network, RuntimeOptions

WIDTH = 3


def component() -> Component:
    shape: tuple[int | str, ...] = ("rows", WIDTH)
    spec = TensorSpec(name="x", dtype="float32", shape=shape)
    out = TensorSpec(name="y", dtype="float32", shape=shape)
    return Component(format="onnx", file="toy.onnx", inputs=(spec,), outputs=(out,))


class FunctionBinding(Binding):
    def __init__(self, network: FunctionNetwork, inputs: Tensors, outputs: Tensors, capacity: int) -> None:
        super().__init__(inputs, outputs, capacity)
        self._network = network

    def run(self, rows: int) -> None:
        self._network.runs.append(rows)
        self._network.before(self.inputs["x"][:rows])
        self.outputs["y"][:rows].copy_(self.inputs["x"][:rows] * 0.9 + 0.5)


@dataclass
class Fault:
    """Raises where an input holds ``trigger`` in its first element."""

    trigger: float = 1e9
    delay_s: float = 0.0

    def __call__(self, x: torch.Tensor) -> None:
        if self.delay_s:
            time.sleep(self.delay_s)
        if bool((x[:, 0] == self.trigger).any()):
            raise RuntimeError("injected fault")


class FunctionNetwork(Network):
    runtime = "toy"

    def __init__(self, max_rows: int, before: Callable[[torch.Tensor], None]) -> None:
        super().__init__(component(), RuntimeOptions(torch.device("cpu"), max_rows=max_rows))
        self.before = before
        self.runs: list[int] = []

    def _bind(self, inputs: Tensors, outputs: Tensors, capacity: int) -> Binding:
        return FunctionBinding(self, inputs, outputs, capacity)


class HalvingTable(BatchedTable):
    component = "net"

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.x = torch.zeros(capacity, WIDTH)
        self.left = np.zeros(capacity, np.int64)

    def admit(self, slots: Slots, loop: Loop) -> None:
        assert isinstance(loop.payload, torch.Tensor)
        self.x[torch.from_numpy(slots)] = loop.payload
        self.left[slots] = loop.steps

    def width(self, slots: Slots) -> NDArray[np.int64]:
        return np.ones(len(slots), np.int64)

    def gather(self, slots: Slots, inputs: Tensors) -> None:
        torch.index_select(self.x, 0, torch.from_numpy(slots), out=inputs["x"])

    def advance(self, slots: Slots, outputs: Tensors) -> None:
        index = torch.from_numpy(slots)
        self.x[index] = 0.5 * (self.x[index] + outputs["y"])
        self.left[slots] -= 1

    def remaining(self, slots: Slots) -> NDArray[np.int64]:
        return self.left[slots]

    def result(self, slots: Slots) -> Tensors:
        return {"x": self.x[torch.from_numpy(slots)]}

    preview = result


class Plain:
    def data(self, rows: NDArray[np.int64], state: Tensors) -> tuple[Array, None]:
        return state["x"].numpy().copy(), None


@dataclass
class ToyFamily:
    """SAMPLE runs ``steps`` ticks from data; LIKELIHOOD is one call per row."""

    name: str = "toy"
    two_sided: frozenset[str] = frozenset()
    closed: list[int] = field(default_factory=list)

    def capabilities(self) -> tuple[Capability, ...]:
        steps = Parameter("steps", "int", 4, 1, 1000)
        sample = Capability(Operation.SAMPLE, (Method("halve", "DISCRETIZED", (steps,), is_default=True),))
        return (sample, Capability(Operation.LIKELIHOOD, (Method("exact", "EXACT", (), is_default=True),)))

    def network_rows(self, request: Request) -> dict[str, int]:
        return {"net": request.rows * steps_of(request)}

    def depth(self, request: Request) -> int:
        return steps_of(request)

    def tables(
        self, components: Mapping[str, object], capacity: int, device: torch.device
    ) -> dict[str, Table]:
        return {"halve": HalvingTable(capacity)}

    def statistics(self, request: Request) -> Program:
        return self.program(request)

    def program(self, request: Request) -> Program:
        try:
            yield from ()
            assert request.data is not None
            x = torch.from_numpy(np.asarray(request.data, np.float32))
            if request.operation is Operation.LIKELIHOOD:
                outputs = yield Call("net", {"x": x})
                return scored(outputs["y"])
            steps = np.full(request.rows, steps_of(request))
            outputs = yield Loop("halve", request.rows, x, steps, Plain())
            return Sampled(outputs["x"].numpy().copy(), SampleKind.DISCRETIZED)
        finally:
            self.closed.append(request.seed)


def steps_of(request: Request) -> int:
    return int(str(request.parameters.get("steps", 1)))


def scored(y: torch.Tensor) -> Scored:
    return Scored(
        y.double().sum(1).numpy(),
        np.full(len(y), WIDTH),
        LikelihoodKind.EXACT,
        "model",
        BaseMeasure.LEBESGUE,
    )


KEY = ModelKey("toy", 1)


@dataclass
class Toy:
    engine: Engine
    network: FunctionNetwork
    family: ToyFamily
    lane: BatchedLane


def toy(
    *,
    max_rows: int = 8,
    queue_rows: int = 1000,
    before: Callable[[torch.Tensor], None] | None = None,
    capacity: int = 64,
    key: ModelKey = KEY,
    engine: Engine | None = None,
    hang_s: float = 60.0,
) -> Toy:
    network = FunctionNetwork(max_rows, before or (lambda x: None))
    family = ToyFamily()
    lane = BatchedLane(key, "net", network)
    lane.add_table("halve", HalvingTable(capacity))
    served = ServedModel(loaded(key, family), family, {"net": lane}, {"halve": lane})
    engine = engine or Engine(max_rows=max_rows, queue_rows=queue_rows, hang_s=hang_s)
    engine.attach(served)
    return Toy(engine, network, family, lane)


def loaded(key: ModelKey, family: ToyFamily) -> LoadedModel:
    data = DataSpace(kind="vector", axes=("feature",), shape=(WIDTH,), dtype="float32")
    spec = ModelSpec.model_construct(name=key.name, data=data, components={"net": component()}, conditions=())
    return LoadedModel(
        key=key,
        spec=spec,
        digest="",
        capabilities=family.capabilities(),
        latent=None,
        determinism="batch_invariant",
        tolerance=None,
        max_rows_per_request=64,
        memory_bytes=0,
        dtype="float32",
        device="cpu",
        runtime="toy",
        load_seconds=0.0,
        warmup_seconds=0.0,
    )


def sample(rows: int = 1, steps: int = 4, start: float = 0.0, seed: int = 0) -> Request:
    data = np.linspace(start, start + 1, rows * WIDTH, dtype=np.float32).reshape(rows, WIDTH)
    return Request(Operation.SAMPLE, "halve", {"steps": steps}, seed, 0, rows, data=data)


def score(rows: int = 1, start: float = 0.0) -> Request:
    data = np.linspace(start, start + 1, rows * WIDTH, dtype=np.float32).reshape(rows, WIDTH)
    return Request(Operation.LIKELIHOOD, "exact", {}, 0, 0, rows, data=data)


def answer(request: Request) -> np.ndarray:
    """What the request must give, whatever else runs."""
    x = torch.from_numpy(np.asarray(request.data, np.float32))
    if request.operation is Operation.LIKELIHOOD:
        return (x * 0.9 + 0.5).double().sum(1).numpy()
    for _ in range(steps_of(request)):
        x = 0.5 * (x + (x * 0.9 + 0.5))
    return x.numpy()
