"""A package and held-out rows: its networks as functions, its data in model coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.package.read import Package
from export.package.schema import Condition, DataSpace, ModelSpec
from serving.commands.dataset import Dataset
from serving.families import units
from serving.families.absent import absent
from serving.runtime.load import open_network
from serving.runtime.network import Network, RuntimeOptions

Floats = NDArray[np.float64]
Array = NDArray[Any]
ROWS = ((16 << 20, 64), (64 << 20, 32), (1 << 62, 16))  # networks of at most so many bytes: rows looked at
SEED = 0


class Subject:
    """``ask`` runs a component; ``labels`` are those of the data, None where the file has none."""

    def __init__(self, package: Package, rows: Dataset, threads: int = 0) -> None:
        self.package = package
        self.spec: ModelSpec = package.spec
        size_bytes = sum((package.folder / file).stat().st_size for file in self.spec.files)
        self.rows = rows[: next(count for limit, count in ROWS if size_bytes <= limit)]
        self._options = RuntimeOptions(torch.device("cpu"), threads)
        self._networks: dict[str, Network] = {}

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def data(self) -> DataSpace:
        """The data space."""
        return self.spec.data

    @cached_property
    def condition(self) -> Condition | None:
        """The only class condition, where there is one."""
        classes = [c for c in self.spec.conditions if c.kind == "class"]
        return classes[0] if len(classes) == 1 else None

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Of the data, by that condition."""
        given = self.rows.conditions.get(self.condition.name) if self.condition else None
        return None if given is None else np.asarray(given, np.int64)

    def conditions(self, labels: NDArray[np.int64] | None = None) -> dict[str, Array]:
        """A value of every condition per row: the data's, or its null value; ``labels`` replaces those."""
        found: dict[str, Array] = {}
        for condition in self.spec.conditions:
            if condition.kind == "class":
                null = np.full(len(self), condition.null_value or 0, np.int64)
                found[condition.name] = np.asarray(self.rows.conditions.get(condition.name, null), np.int64)
            elif condition.kind == "text":
                nothing = self.ask("text_encoder", {"tokens": absent(condition, 1)})["hidden"]
                found[condition.name] = np.repeat(nothing.astype(np.float32), len(self), axis=0)
            elif condition.name in self.rows.conditions:
                found[condition.name] = np.asarray(self.rows.conditions[condition.name], np.float32)
        if labels is not None and self.condition is not None:
            found[self.condition.name] = labels
        return found

    def ask(self, component: str, inputs: Mapping[str, Array]) -> dict[str, Floats]:
        """Outputs by name, float64; inputs that the component does not have are left out."""
        network = self._network(component)
        tensors = {
            name: torch.from_numpy(np.ascontiguousarray(inputs[name])).to(dtype)
            for name, (dtype, _) in network.specs.items()
        }
        return {name: value.double().numpy() for name, value in network(tensors).items()}

    def has(self, component: str) -> bool:
        """Whether the package has it."""
        return component in self.spec.components

    @property
    def unbiased(self) -> float:
        """Turns the variance about the rows' own mean into the error of the other rows' mean."""
        return (len(self) / max(1, len(self) - 1)) ** 2

    def normal(self, *shape: int) -> Floats:
        """Seeded standard normal numbers; the same for the same shape."""
        return np.random.default_rng([SEED, *shape]).standard_normal(shape)

    def _network(self, component: str) -> Network:
        if component not in self._networks:
            path, declared = self.package.component_path(component), self.spec.components[component]
            self._networks[component] = open_network(path, declared, self._options)
        return self._networks[component]


@dataclass(frozen=True)
class Reading:
    """Data as a network sees them: ``space`` says the transform, ``data`` [rows, *shape] the layout.

    ``mistake`` names what the package gets wrong if this reading is the true one; "" for the package's own.
    """

    mistake: str
    space: DataSpace
    data: Array

    @cached_property
    def x(self) -> Floats:
        """In model coordinates [rows, *shape]."""
        values = np.asarray(self.data, np.float64) * units.scale(self.space) + units.shift(self.space)
        return np.asarray(values, np.float64)

    def with_data(self, mistake: str, data: Array) -> Reading:
        """The same transform of other values."""
        return replace(self, mistake=mistake, data=data)
