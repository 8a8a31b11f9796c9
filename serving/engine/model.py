"""A package in memory: its networks, tables and lanes, warmed and tested on this device."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from export.package.schema import TOKENIZER_FILE, Component, DataSpace, ModelSpec
from export.package.tokenizer import Tokenizer
from serving.engine.batched_lane import BatchedLane
from serving.engine.device_lane import DeviceLane
from serving.engine.device_slotted_lane import DeviceSlottedLane
from serving.engine.lane import Lane
from serving.engine.memory import answer_row_bytes, network_row_bytes, slotted_row_bytes
from serving.engine.messages import ModelKey
from serving.engine.slotted_lane import SlottedLane
from serving.engine.warmup import Verdict, measured, time_decoding, warm
from serving.families.calibration import Calibration
from serving.families.capability import Capability
from serving.families.registry import family_of
from serving.families.rows import BatchedTable, Family, RunningTable, SlottedTable, Table
from serving.runtime.capture import use_stream
from serving.runtime.load import open_network
from serving.runtime.network import Network, RuntimeOptions

if TYPE_CHECKING:
    from export.package.read import Package

TABLE_BYTES = 512 * 2**20
CACHE_BYTES = 1024 * 2**20
MAX_CAPACITY = 1024
MAX_SLOTS = 1024
STATE_COPIES = 8  # arrays of a row's size that a table keeps, roughly


@dataclass(frozen=True)
class LoadedModel:
    """What the outside may know of a model that is ready."""

    key: ModelKey
    spec: ModelSpec
    digest: str
    capabilities: tuple[Capability, ...]
    latent: DataSpace | None
    determinism: Literal["batch_invariant", "tolerance"]
    tolerance: float | None
    max_rows_per_request: int
    memory_bytes: int
    dtype: str
    device: str
    runtime: str
    load_seconds: float
    warmup_seconds: float
    folder: Path | None = None  # where its files are
    cache_bytes: int = 0  # of keys and values, beside ``memory_bytes`` of weights


@dataclass(frozen=True)
class ServedModel:
    """A loaded model and the lanes that serve it; ``answer_bytes`` of one row's data, given and answered."""

    loaded: LoadedModel
    family: Family
    lanes: Mapping[str, Lane]  # by component
    table_lanes: Mapping[str, Lane]  # by table
    answer_bytes: int = 0

    @property
    def key(self) -> ModelKey:
        """Name and version."""
        return self.loaded.key


def open_model(
    key: ModelKey,
    package: Package,
    calibration: Calibration | None,
    options: RuntimeOptions,
    warming: Callable[[], object] = lambda: None,
) -> ServedModel:
    """Load a package, call ``warming``, warm it; blocking. Raises what the runtimes and families raise."""
    begun, spec = time.monotonic(), package.spec
    use_stream(options.device)
    family = family_of(spec, calibration)
    networks = _networks(package, options)
    capacity = _capacity(spec, options.max_rows)
    slots, components = _components(package, networks, options)
    held_rows = min(capacity, slots) if slots else capacity
    tables = family.tables(components, held_rows, options.device)
    lanes, table_lanes = _lanes(key, networks, tables, options.max_rows)
    opened = time.monotonic()
    warming()
    verdict = _warmed(spec, family, networks, lanes)
    warmed = time.monotonic()
    loaded = LoadedModel(
        key=key,
        spec=spec,
        digest=package.digest,
        capabilities=measured(spec, family, lanes),
        latent=getattr(family, "latent", None),
        max_rows_per_request=held_rows,
        memory_bytes=sum((package.folder / name).stat().st_size for name in spec.files),
        determinism="batch_invariant" if verdict.largest_difference == 0.0 else "tolerance",
        tolerance=verdict.largest_difference or None,
        dtype=_dtype(next(iter(spec.components.values()))),
        device=str(options.device),
        runtime="+".join(sorted({network.runtime for network in networks.values()})),
        load_seconds=opened - begun,
        warmup_seconds=warmed - opened,
        folder=package.folder,
        cache_bytes=getattr(components.get("decoder"), "cache_bytes", 0),
    )
    return ServedModel(loaded, family, lanes, table_lanes, answer_row_bytes(spec))


def _weigh(spec: ModelSpec, networks: Mapping[str, Network], lanes: Mapping[str, Lane]) -> None:
    """What admission counts for every row of every lane."""
    for name, lane in lanes.items():
        if name in networks:
            lane.row_bytes = network_row_bytes(spec, networks[name])
        elif spec.autoregressive is not None:
            lane.row_bytes = slotted_row_bytes(spec.autoregressive, spec.data.elements)


def _dtype(graph: Component) -> str:
    """Of the network's arithmetic, and how its matrices are stored where they are rounded further."""
    return graph.precision if graph.weights == "same" else f"{graph.precision}, {graph.weights} weights"


def _warmed(
    spec: ModelSpec, family: Family, networks: Mapping[str, Network], lanes: Mapping[str, Lane]
) -> Verdict:
    _weigh(spec, networks, lanes)
    verdict = warm(spec, networks, lanes)
    for lane in lanes.values():
        if isinstance(lane, DeviceLane | DeviceSlottedLane):
            lane.prepare()
        if isinstance(lane, SlottedLane):
            time_decoding(spec, family, lane)
    return verdict


def _networks(package: Package, options: RuntimeOptions) -> dict[str, Network]:
    return {
        name: open_network(package.folder / component.file, component, options)
        for name, component in package.spec.components.items()
        if not _cached(package.spec, name)
    }


def _cached(spec: ModelSpec, component: str) -> bool:
    ar = spec.autoregressive
    return ar is not None and ar.cache is not None and component == "decoder"


def _components(
    package: Package, networks: dict[str, Network], options: RuntimeOptions
) -> tuple[int, dict[str, object]]:
    """Cache slots (0 without a cache) and what tables are built from; a decoder that scores adds networks."""
    components: dict[str, object] = dict(networks)
    ar = package.spec.autoregressive
    if ar is not None and ar.tokenizer == "huggingface":
        components["pieces"] = Tokenizer(package.folder / TOKENIZER_FILE).bytes_of
    if ar is None or ar.cache is None:
        return 0, components
    from serving.runtime.cached import open_cached
    from serving.runtime.scoring import scoring_networks

    cache = ar.cache
    slot_bytes = 8 * cache.layers * cache.kv_heads * cache.head_dim * cache.max_length
    slots = max(1, min(MAX_SLOTS, CACHE_BYTES // slot_bytes))
    graph = package.spec.components["decoder"]
    decoder = open_cached(package.folder / graph.file, graph, ar, slots, options)
    if decoder.selective and "scorer" not in networks:
        networks |= scoring_networks(decoder.graph, options)
    return slots, {**components, **networks, "decoder": decoder}


def _capacity(spec: ModelSpec, max_rows: int) -> int:
    row_bytes = 4 * STATE_COPIES * spec.data.elements
    return max(max_rows, min(MAX_CAPACITY, TABLE_BYTES // row_bytes))


def _lanes(
    key: ModelKey, networks: Mapping[str, Network], tables: Mapping[str, Table], max_rows: int
) -> tuple[dict[str, Lane], dict[str, Lane]]:
    batched = {name: _batched_lane(key, name, network) for name, network in networks.items()}
    lanes: dict[str, Lane] = dict(batched)
    by_table: dict[str, Lane] = {}
    for name, table in tables.items():
        if isinstance(table, BatchedTable):
            batched[table.component].add_table(name, table)
            by_table[name] = batched[table.component]
        elif isinstance(table, SlottedTable):
            by_table[name] = lanes[table.component] = _slotted_lane(key, name, table, max_rows)
    return lanes, by_table


def _batched_lane(key: ModelKey, name: str, network: Network) -> BatchedLane:
    """A CPU works while it is called; another device goes on by itself."""
    kind = BatchedLane if network.options.device.type == "cpu" else DeviceLane
    return kind(key, name, network)


def _slotted_lane(key: ModelKey, name: str, table: SlottedTable, max_rows: int) -> SlottedLane:
    if isinstance(table, RunningTable) and table.stays(np.empty(0, np.int64)):
        return DeviceSlottedLane(key, name, table, max_rows)
    return SlottedLane(key, name, table, max_rows)
