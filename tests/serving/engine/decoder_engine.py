"""A small decoder in TorchScript in an engine of its own, over a slotted lane of either kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from export.graph.scripted_decoder import ScriptedDecoder, component, example
from export.graph.torchscript import export_torchscript
from export.package.schema import Autoregressive, CacheLayout, Component, DataSpace, ModelSpec, Parity
from serving.engine.device_slotted_lane import DeviceSlottedLane
from serving.engine.engine import Engine
from serving.engine.messages import ModelKey
from serving.engine.model import LoadedModel, ServedModel
from serving.engine.slotted_lane import SlottedLane
from serving.families.autoregressive.family import AutoregressiveFamily
from serving.families.autoregressive.sampling import TABLE
from serving.families.autoregressive.slotted import CachedTable
from serving.families.request import Operation, Request
from serving.families.result import Result
from serving.runtime.cached import CachedDecoder, open_cached
from serving.runtime.capture import use_stream
from serving.runtime.network import RuntimeOptions
from tests.export.graph.test_cached_decoder import IDS, KV_HEADS, LENGTH, SIZE, decoder

KEY, SLOTS, MAX_ROWS, END = ModelKey("decoder", 1), 10, 4, 7
CPU = torch.device("cpu")


@dataclass
class Made:
    engine: Engine
    lane: SlottedLane
    table: CachedTable
    decoder: CachedDecoder

    def results(self, requests: list[Request]) -> list[Result]:
        tickets = [self.engine.submit(KEY, request) for request in requests]
        return [ticket.result(20.0) for ticket in tickets]


def _spec(graph: Component) -> ModelSpec:
    cache = CacheLayout(layers=2, kv_heads=KV_HEADS, head_dim=SIZE, max_length=LENGTH)
    return ModelSpec(
        format_version=1,
        name="decoder",
        family="autoregressive",
        description="two layers",
        license="Apache-2.0",
        data=DataSpace(
            kind="tokens", axes=("position",), shape=(-1,), dtype="int32", levels=IDS, max_length=LENGTH
        ),
        components={"decoder": graph},
        autoregressive=Autoregressive(vocabulary=IDS, begin_symbol=0, end_symbol=END, cache=cache),
        parity=Parity(max_abs_error=0.0, max_rel_error=0.0, inputs="none"),
        files={graph.file: "0" * 64},
    )


def made(kind: type[SlottedLane], folder: Path, device: torch.device = CPU) -> Made:
    """An engine that is not started yet."""
    network, path = decoder(), folder / "decoder.pt"
    module = ScriptedDecoder(network, torch.float32)
    path.write_bytes(export_torchscript(module, example(network, torch.float32)))
    graph = Component.model_validate(component(network, torch.float32, path.name))
    spec = _spec(graph)
    assert spec.autoregressive is not None
    use_stream(device)
    opened = open_cached(path, graph, spec.autoregressive, SLOTS, RuntimeOptions(device, 1, SLOTS))
    family, running = AutoregressiveFamily(spec), kind is DeviceSlottedLane
    table = family.tables({"decoder": opened, "running": running}, SLOTS, device)[TABLE]
    assert isinstance(table, CachedTable)
    lane = kind(KEY, TABLE, table, MAX_ROWS)
    if isinstance(lane, DeviceSlottedLane):
        lane.prepare()
    engine = Engine(max_rows=MAX_ROWS)
    loaded = LoadedModel(
        KEY, spec, "", family.capabilities(), None, "batch_invariant", None, SLOTS, 0, "float32",
        str(device), "toy", 0, 0,
    )  # fmt: skip
    engine.attach(ServedModel(loaded, family, {"decoder": lane}, {TABLE: lane}))
    return Made(engine, lane, table, opened)


def sample(rows: int, new: int, seed: int = 5, prompt: int = 0, **parameters: float) -> Request:
    """``new`` tokens after ``prompt`` given ones."""
    given = {"max_new_tokens": new, **parameters}
    data = np.random.default_rng(prompt).integers(0, END, (rows, prompt)).astype(np.int32)
    lengths = np.full(rows, prompt, np.int32)
    return Request(
        Operation.SAMPLE, "ancestral", given, seed, 0, rows,
        data=data if prompt else None, lengths=lengths if prompt else None,
    )  # fmt: skip
