"""What a component takes and gives, and how each value reaches the user's network and comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from export.adapt.steps import Step

Size = int | str  # a number, or the name of a dynamic axis
Source = int | str  # of a value: its place, or its name (parameter, key, attribute, graph tensor)


@dataclass(frozen=True)
class Wire:
    """One value of a component: ``name``, ``dtype`` and row ``shape`` are the package's.

    ``steps``: of an input, from the package's value to the network's; of an output, back. ``source``: which
    of the network's inputs or outputs it is; None: the one at its own place. ``seen``: the row shape on the
    network's side, for messages; None: not known.
    """

    name: str
    dtype: str
    shape: tuple[Size, ...]
    steps: tuple[Step, ...] = ()
    source: Source | None = None
    seen: tuple[Size, ...] | None = None


@dataclass(frozen=True)
class Wiring:
    """All values of one component, in the package's order."""

    inputs: tuple[Wire, ...]
    outputs: tuple[Wire, ...]

    def named(self, inputs: Mapping[str, Source], outputs: Mapping[str, Source]) -> Wiring:
        """The same with the sources that the user states, by the package's names.

        Raises ValueError for a name that this component does not have.
        """
        return Wiring(_sources(self.inputs, inputs), _sources(self.outputs, outputs))

    @classmethod
    def placed(cls, inputs: Sequence[Wire], outputs: Sequence[Wire]) -> Wiring:
        """Every value without a source gets its place."""
        return cls(_places(inputs), _places(outputs))

    def component(self, format: str, file: str) -> dict[str, Any]:
        """The ``components`` entry of ``model.yaml``."""
        return {
            "format": format,
            "file": file,
            "inputs": [_tensor(wire) for wire in self.inputs],
            "outputs": [_tensor(wire) for wire in self.outputs],
        }

    @property
    def plain(self) -> bool:
        """Whether no value changes on its way."""
        return not any(wire.steps for wire in (*self.inputs, *self.outputs))


def _places(wires: Sequence[Wire]) -> tuple[Wire, ...]:
    return tuple(
        replace(wire, source=place if wire.source is None else wire.source)
        for place, wire in enumerate(wires)
    )


def _sources(wires: Sequence[Wire], stated: Mapping[str, Source]) -> tuple[Wire, ...]:
    for name in stated:
        if name not in {wire.name for wire in wires}:
            known = ", ".join(wire.name for wire in wires)
            raise ValueError(f"there is no value {name!r} to rename; there are {known}")
    return tuple(replace(wire, source=stated.get(wire.name, wire.source)) for wire in wires)


def _tensor(wire: Wire) -> dict[str, Any]:
    return {"name": wire.name, "dtype": wire.dtype, "shape": ["rows", *wire.shape]}
