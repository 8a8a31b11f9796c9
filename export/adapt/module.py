"""A user's torch module behind the package's names: forward takes and gives what ``model.yaml`` says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from export.adapt.steps import Step, constants_of
from export.adapt.wiring import Source, Wire, Wiring


class OutputError(ValueError):
    """What a network returned is not what the specification says."""


class Adapted(nn.Module):
    """``network`` as a component; positional arguments in the order of ``wiring.inputs``.

    Inputs whose source is a name are passed by keyword, the others by position in order. The answer is one
    tensor, or a tuple in the order of ``wiring.outputs``. ``network`` may return a tensor, a tuple or list, a
    mapping, or an object with attributes (dataclasses, ``ModelOutput``).
    """

    def __init__(self, network: nn.Module, wiring: Wiring) -> None:
        super().__init__()
        self.network = network
        self._wiring = wiring
        self._before = nn.ModuleList(_held(wire) for wire in wiring.inputs)
        self._after = nn.ModuleList(_held(wire) for wire in wiring.outputs)

    def ask(self, *arguments: Tensor) -> Any:
        """What the network itself returns for the package's inputs."""
        wires = self._wiring.inputs
        given = [steps(value) for steps, value in zip(self._before, arguments, strict=True)]
        pairs = list(zip(wires, given, strict=True))
        positional = [value for wire, value in pairs if not isinstance(wire.source, str)]
        keywords = {wire.source: value for wire, value in pairs if isinstance(wire.source, str)}
        return self.network(*positional, **keywords)

    def forward(self, *arguments: Tensor) -> Tensor | tuple[Tensor, ...]:
        """See the class."""
        found = self.ask(*arguments)
        outputs = zip(self._after, self._wiring.outputs, strict=True)
        answer = tuple(steps(pick(found, wire.source, wire.name)) for steps, wire in outputs)
        return answer[0] if len(answer) == 1 else answer


class _Held(nn.Module):
    """A step with its arrays as buffers, which go where the module goes; a trace then names no device."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self._step = step
        for place, value in enumerate(constants_of(step)):
            self.register_buffer(f"constant_{place}", torch.from_numpy(value), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The step."""
        return self._step.apply(x, *self.buffers())


def _held(wire: Wire) -> nn.Sequential:
    return nn.Sequential(*(_Held(step) for step in wire.steps))


def pick(found: Any, source: Source | None, name: str) -> Tensor:
    """The output that ``source`` means; raises OutputError, which says what there is instead.

    Places count in tensors and tuples only. What comes back under names is found by its name: the stated
    one, the package's own, or as the only tensor there is.
    """
    values = _fields(found)
    key = source if isinstance(source, str) or isinstance(found, Tensor | tuple | list) else name
    if key not in values and not isinstance(source, str) and len(values) == 1 and source == 0:
        key = next(iter(values))
    if key not in values:
        raise OutputError(f"{name!r}: the network returned {describe(found)}, which has no {key!r}")
    return values[key]


def _fields(found: Any) -> dict[Source, Tensor]:
    """Every tensor that came back, by place or name."""
    pairs: Any
    if isinstance(found, Tensor):
        pairs = [(0, found)]
    elif isinstance(found, Mapping):
        pairs = found.items()
    elif isinstance(found, tuple | list):
        pairs = [*enumerate(found), *getattr(found, "_asdict", dict)().items()]
    else:
        pairs = getattr(found, "__dict__", {}).items()
    return {key: value for key, value in pairs if isinstance(value, Tensor)}


def describe(found: Any) -> str:
    """What a network returned, in words: "a tuple of 2", "a dict with 'mu', 'logvar'"."""
    if isinstance(found, Tensor):
        return f"one tensor {list(found.shape)}"
    if isinstance(found, Mapping):
        return f"a {type(found).__name__} with {', '.join(map(repr, found))}"
    if isinstance(found, tuple | list):
        parts = ", ".join(str(list(v.shape)) if isinstance(v, Tensor) else type(v).__name__ for v in found)
        return f"a {type(found).__name__} of {len(found)} ({parts})"
    names = [key for key, value in getattr(found, "__dict__", {}).items() if isinstance(value, Tensor)]
    return f"a {type(found).__name__} with {', '.join(map(repr, names)) or 'no tensors'}"
