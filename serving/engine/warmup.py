"""Warm-up: runs every network, tests whether rows depend on their batch, and measures what things cost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from export.package.schema import ModelSpec, TensorSpec
from serving.engine.batched_lane import BatchedLane
from serving.engine.estimate import StepTime
from serving.engine.example import example_request
from serving.engine.lane import Lane
from serving.engine.slotted_lane import SlottedLane
from serving.engine.work import Work
from serving.families.capability import Capability, undefined
from serving.families.request import Operation
from serving.families.rows import Family, Loop
from serving.runtime.capture import wait_for
from serving.runtime.network import Network, Tensors

FIXED_ROWS = 16  # what a network is padded to if its rows depend on their number
PROBED_LENGTH = 32  # of a dynamic axis
SHORT_LENGTH = 16  # of networks that say how many rows are enough
COUNTS = (1, 2, 3, 7, 16)
DECODING_TICKS = 3
PROBE_S = 1.0  # of one run, roughly; large networks are probed with fewer rows than run at once
LEAST_ROWS = 16  # of such a run


@dataclass(frozen=True)
class Verdict:
    """``largest_difference`` of any output between a row alone and in a batch; 0: bitwise the same."""

    largest_difference: float


def warm(spec: ModelSpec, networks: Mapping[str, Network], lanes: Mapping[str, Lane]) -> Verdict:
    """Run all networks; on CPU, those whose rows depend on the batch are padded to one row count from now on.

    On CUDA, where another row count means another algorithm, padding would cost a multiple, and the
    difference is told instead.
    """
    worst = 0.0
    for name, network in networks.items():
        inputs = _enough(network, probe_inputs(spec, network))
        difference = batch_difference(network, inputs)
        if difference > 0.0 and not network.options.fixed_rows and network.options.device.type == "cpu":
            network.fix_rows(FIXED_ROWS)
            difference = batch_difference(network, inputs)
        worst = max(worst, difference)
        lane = lanes[name]
        if isinstance(lane, BatchedLane):
            time_runs(network, inputs, lane.step_time)
    return Verdict(worst)


def _enough(network: Network, inputs: Tensors) -> Tensors:
    """The first rows of the inputs, as many as one run takes about ``PROBE_S`` for."""
    first = {name: value[:1] for name, value in inputs.items()}
    network(first)  # allocates, and picks its kernels
    begun = time.perf_counter()
    network(first)
    wait_for(network.options.device)
    rows = max(LEAST_ROWS, int(PROBE_S / (time.perf_counter() - begun)))
    return {name: value[:rows] for name, value in inputs.items()}


def batch_difference(network: Network, inputs: Tensors) -> float:
    """Largest difference between rows of a full run and the same rows in runs of other sizes and places."""
    whole = network(inputs)
    rows = next(iter(inputs.values())).shape[0]
    worst = 0.0
    for count in COUNTS:
        if count >= rows > 1:
            continue
        start = (5 * count) % max(1, rows - count + 1)
        part = network({name: value[start : start + count] for name, value in inputs.items()})
        for name, value in part.items():
            gap = (value.double() - whole[name][start : start + count].double()).abs().max()
            worst = max(worst, float(gap))
    return worst


def time_runs(network: Network, inputs: Tensors, step_time: StepTime) -> None:
    """Seed the running estimate with a few row counts."""
    rows = next(iter(inputs.values())).shape[0]
    for count in {1, max(1, rows // 8), rows}:
        part = {name: value[:count] for name, value in inputs.items()}
        for _ in range(2):
            begun = time.perf_counter()
            network(part)
            wait_for(network.options.device)
            step_time.observe(count, time.perf_counter() - begun)


def time_decoding(spec: ModelSpec, family: Family, lane: SlottedLane) -> None:
    """Seed the estimate of a cached network: a few decoding ticks of one row, and of many."""
    capability = next(c for c in family.capabilities() if c.operation is Operation.SAMPLE)
    example = example_request(spec, family, capability, capability.default)
    for rows in {1, min(lane.max_rows, lane.table.capacity)}:
        conditions = {name: value.repeat(rows, 0) for name, value in example.conditions.items()}
        program = family.program(replace(example, rows=rows, conditions=conditions))
        loop = next(program)
        assert isinstance(loop, Loop)
        slots = np.arange(rows)
        lane.table.admit(slots, loop)
        for slot in lane.table.pending_prefill():
            while lane.table.prefill(int(slot)):
                pass
        for _ in range(min(DECODING_TICKS, int(loop.steps.max()))):
            begun = time.perf_counter()
            lane.table.decode(slots)
            lane.step_time.observe(rows, time.perf_counter() - begun)
        lane.table.release(slots)
        program.close()


def probe_inputs(spec: ModelSpec, network: Network) -> Tensors:
    """Seeded inputs for as many rows as say enough of a run, within the ranges that the package declares."""
    generator = torch.Generator().manual_seed(0)
    most = PROBED_LENGTH if network.probe_rows is None else SHORT_LENGTH
    length = {
        axis: min(most, spec.data.elements)
        for i in network.spec.inputs
        for axis in i.row_shape
        if isinstance(axis, str)
    }
    rows = network.binding(tuple(sorted(length.items()))).capacity
    rows = min(rows, network.probe_rows or rows)
    device = network.options.device
    return {i.name: _probe(spec, i, rows, length, generator).to(device) for i in network.spec.inputs}


def _probe(
    spec: ModelSpec, tensor: TensorSpec, rows: int, length: Mapping[str, int], generator: torch.Generator
) -> torch.Tensor:
    shape = [rows, *(axis if isinstance(axis, int) else length[axis] for axis in tensor.row_shape)]
    if tensor.dtype.startswith("int") or tensor.dtype in ("uint8", "bool"):
        values = torch.randint(0, _integers(spec, tensor.name), shape, generator=generator)
        return values.to(getattr(torch, tensor.dtype))
    if tensor.name == "t":
        return torch.rand(shape, generator=generator).to(getattr(torch, tensor.dtype))
    return torch.randn(shape, generator=generator).to(getattr(torch, tensor.dtype))


def _integers(spec: ModelSpec, name: str) -> int:
    """How many values an integer input may have."""
    for condition in spec.conditions:
        if condition.name == name:
            return condition.classes
    if name == "tokens" and spec.autoregressive is not None:
        return spec.autoregressive.vocabulary
    return 2


def measured(spec: ModelSpec, family: Family, lanes: Mapping[str, Lane]) -> tuple[Capability, ...]:
    """The family's capabilities with seconds per row at the defaults, from the measured runs."""
    return tuple(_measured(spec, family, lanes, capability) for capability in family.capabilities())


def _measured(
    spec: ModelSpec, family: Family, lanes: Mapping[str, Lane], capability: Capability
) -> Capability:
    if capability.operation in spec.disabled_operations:
        return undefined(capability.operation, "the owner of this package has switched this operation off")
    seconds = {
        method.name: Work.of(family, example_request(spec, family, capability, method)).price(lanes).alone_s
        for method in capability.methods
    }
    return capability.measured(seconds)
