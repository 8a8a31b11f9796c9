"""One run of a network before anything is exported: does it take and give what the specification says?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from export.adapt.module import Adapted, OutputError, describe, pick
from export.adapt.steps import POSITIVE, PROBABILITIES, apply_all
from export.adapt.wiring import Size, Wire, Wiring
from export.assemble.failures import first_line, refused_run
from export.package.errors import PackageError, Reason

Inputs = Mapping[str, Tensor]


def trial(name: str, network: nn.Module, wiring: Wiring, inputs: Inputs) -> dict[str, Tensor]:
    """The component's outputs by name for example inputs [rows, ...], in the wiring's order.

    Raises PackageError: WRONG_OUTPUT (it does not run, other outputs or shapes, values that the specification
    rules out), TRAINING_MODE (two runs differ).
    """
    adapted = Adapted(network, wiring)
    raw = _ask(name, adapted, wiring, inputs)
    found = {wire.name: _output(name, wire, raw, wiring, inputs) for wire in wiring.outputs}
    _check_repeats(name, raw, _ask(name, adapted, wiring, inputs))
    return found


def _ask(name: str, adapted: Adapted, wiring: Wiring, inputs: Inputs) -> object:
    try:
        with torch.no_grad():
            return adapted.ask(*inputs.values())
    except Exception as error:  # the user's code may raise anything
        raise refused_run(name, adapted.network, wiring, inputs, error) from error


def _output(name: str, wire: Wire, raw: object, wiring: Wiring, inputs: Inputs) -> Tensor:
    try:
        value = pick(raw, wire.source, wire.name)
    except OutputError as error:
        names = ", ".join(f"{w.name!r}: ..." for w in wiring.outputs)
        raise _refused(
            name,
            f"output {error}",
            f"Say which is which: Network(module, outputs={{{names}}}), by place or name",
        ) from error
    if wire.seen is not None and tuple(value.shape[1:]) != wire.seen:
        raise _other_shape(name, wire, value, wire.seen, raw)
    _check_domain(name, wire, value)
    try:
        return _checked(name, wire, apply_all(wire.steps, value), raw, inputs)
    except (RuntimeError, IndexError) as error:
        raise _refused(
            name,
            f"output {wire.name!r} is {list(value.shape)}, which cannot become [rows, "
            f"{', '.join(map(str, wire.shape))}]: {first_line(error)}",
            "Correct the shapes of the specification",
        ) from error


def _checked(name: str, wire: Wire, value: Tensor, raw: object, inputs: Inputs) -> Tensor:
    rows = len(next(iter(inputs.values())))
    wanted = tuple(_size(size, inputs) for size in wire.shape)
    if tuple(value.shape) != (rows, *wanted):
        raise _other_shape(name, wire, value, wanted, raw)
    if not torch.isfinite(value).all():
        raise _refused(
            name,
            f"output {wire.name!r} has NaN or infinity on seeded inputs",
            "Check the weights and the inputs",
        )
    return value.to(torch.float32)


def _size(size: Size, inputs: Inputs) -> int:
    """Named axes are as long as those of the examples: ``length`` is axis 1 of the first input."""
    return size if isinstance(size, int) else next(iter(inputs.values())).shape[1]


def _other_shape(name: str, wire: Wire, value: Tensor, wanted: tuple[Size, ...], raw: object) -> PackageError:
    return _refused(
        name,
        f"output {wire.name!r} has rows of shape {list(value.shape[1:])}, not {list(wanted)} "
        f"(it returned {describe(raw)})",
        "Correct data or latent_shape, say layout='flat' or 'channels_last', or which output it is: "
        f"Network(module, outputs={{{wire.name!r}: ...}})",
    )


def _check_domain(name: str, wire: Wire, value: Tensor) -> None:
    """What is called a probability or a deviation has the values of one."""
    takes = next((step.takes for step in wire.steps if hasattr(step, "takes")), "")
    if takes == PROBABILITIES and bool(((value < 0.0) | (value > 1.0)).any()):
        raise _refused(
            name,
            f"output {wire.name!r} is said to be probabilities, but has values from {value.min():.3g} to "
            f"{value.max():.3g}",
            "These are logits: say 'logits' in the specification",
        )
    if takes == POSITIVE and bool((value <= 0.0).any()):
        raise _refused(
            name,
            f"output {wire.name!r} is said to be a deviation or variance, but has values down to "
            f"{value.min():.3g}",
            "These are logarithms: say posterior='mean_logvar' (or 'mean_logstd', std='log_std', "
            "scale='log_scale')",
        )


def _check_repeats(name: str, first: object, second: object) -> None:
    """Networks of packages are functions: what is random is drawn by the server, from the request's seed."""
    if _tensors(first) != _tensors(second):
        raise PackageError(
            Reason.TRAINING_MODE,
            name,
            "two runs on the same inputs differ, in evaluation mode: dropout that ignores the mode, or noise "
            "that the network draws itself",
            "Write F.dropout(x, training=self.training); give the noise as an input, or remove it",
        )


def _tensors(found: object) -> list[bytes]:
    values = found.values() if isinstance(found, Mapping) else getattr(found, "__dict__", {}).values()
    several = [found] if isinstance(found, Tensor) else found if isinstance(found, tuple | list) else values
    return [value.detach().numpy().tobytes() for value in several if isinstance(value, Tensor)]


def _refused(name: str, problem: str, fix: str) -> PackageError:
    return PackageError(Reason.WRONG_OUTPUT, name, problem, fix)
