"""A package in memory: its networks, tables and lanes, warmed and tested on this device."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from export.package.schema import DataSpace, ModelSpec
from serving.engine.batched_lane import BatchedLane
from serving.engine.lane import Lane
from serving.engine.messages import ModelKey
from serving.engine.slotted_lane import SlottedLane
from serving.engine.warmup import measured, time_decoding, warm
from serving.families.calibration import Calibration
from serving.families.capability import Capability
from serving.families.registry import family_of
from serving.families.rows import BatchedTable, Family, SlottedTable, Table
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


@dataclass(frozen=True)
class ServedModel:
    """A loaded model and the lanes that serve it."""

    loaded: LoadedModel
    family: Family
    lanes: Mapping[str, Lane]  # by component
    table_lanes: Mapping[str, Lane]  # by table

    @property
    def key(self) -> ModelKey:
        """Name and version."""
        return self.loaded.key


def open_model(
    key: ModelKey, package: Package, calibration: Calibration | None, options: RuntimeOptions
) -> ServedModel:
    """Load and warm a package; blocking. Raises what the runtimes and families raise."""
    begun = time.monotonic()
    spec = package.spec
    family = family_of(spec, calibration)
    networks = _networks(package, options)
    capacity = _capacity(spec, options.max_rows)
    slots, components = _components(package, networks, options)
    tables = family.tables(components, min(capacity, slots) if slots else capacity, options.device)
    lanes, table_lanes = _lanes(key, networks, tables, options.max_rows)
    opened = time.monotonic()
    verdict = warm(spec, networks, lanes)
    for lane in lanes.values():
        if isinstance(lane, SlottedLane):
            time_decoding(spec, family, lane)
    warmed = time.monotonic()
    loaded = LoadedModel(
        key=key,
        spec=spec,
        digest=package.digest,
        capabilities=measured(spec, family, lanes),
        latent=getattr(family, "latent", None),
        max_rows_per_request=min(capacity, slots) if slots else capacity,
        memory_bytes=sum((package.folder / name).stat().st_size for name in spec.files),
        determinism="batch_invariant" if verdict.largest_difference == 0.0 else "tolerance",
        tolerance=verdict.largest_difference or None,
        dtype=next(iter(spec.components.values())).precision,
        device=str(options.device),
        runtime="+".join(sorted({network.runtime for network in networks.values()})),
        load_seconds=opened - begun,
        warmup_seconds=warmed - opened,
    )
    return ServedModel(loaded, family, lanes, table_lanes)


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
    package: Package, networks: Mapping[str, Network], options: RuntimeOptions
) -> tuple[int, dict[str, object]]:
    """Cache slots (0 without a cache) and what tables are built from."""
    components: dict[str, object] = dict(networks)
    ar = package.spec.autoregressive
    if ar is None or ar.cache is None:
        return 0, components
    from serving.runtime.cached import open_cached

    cache = ar.cache
    slot_bytes = 8 * cache.layers * cache.kv_heads * cache.head_dim * cache.max_length
    slots = max(1, min(MAX_SLOTS, CACHE_BYTES // slot_bytes))
    path = package.folder / package.spec.components["decoder"].file
    components["decoder"] = open_cached(path, ar, slots, options.threads, options.device)
    return slots, components


def _capacity(spec: ModelSpec, max_rows: int) -> int:
    row_bytes = 4 * STATE_COPIES * spec.data.elements
    return max(max_rows, min(MAX_CAPACITY, TABLE_BYTES // row_bytes))


def _lanes(
    key: ModelKey, networks: Mapping[str, Network], tables: Mapping[str, Table], max_rows: int
) -> tuple[dict[str, Lane], dict[str, Lane]]:
    batched = {name: BatchedLane(key, name, network) for name, network in networks.items()}
    lanes: dict[str, Lane] = dict(batched)
    by_table: dict[str, Lane] = {}
    for name, table in tables.items():
        if isinstance(table, BatchedTable):
            batched[table.component].add_table(name, table)
            by_table[name] = batched[table.component]
        elif isinstance(table, SlottedTable):
            by_table[name] = lanes[table.component] = SlottedLane(key, name, table, max_rows)
    return lanes, by_table
