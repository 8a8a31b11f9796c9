"""Does a model have the components of its family, and do they fit its data? No graph is opened."""

from __future__ import annotations

from pathlib import Path

from export.package.contracts import contracts
from export.package.errors import PackageError, Reason
from export.package.ports import check_component, mismatch
from export.package.schema import ModelSpec


def check_components(where: Path | str, spec: ModelSpec) -> None:
    """Compare the declared components with the family's contracts.

    Raises PackageError: MISSING_COMPONENT, UNKNOWN_COMPONENT, GRAPH_MISMATCH, WRONG_SHAPE, BAD_VALUE.
    """
    known = {contract.component: contract for contract in contracts(spec)}
    missing = [c.component for c in known.values() if c.required and c.component not in spec.components]
    if missing:
        raise PackageError(
            Reason.MISSING_COMPONENT,
            where,
            f"components: the family {spec.family!r} needs {' and '.join(missing)}",
            "Export the network and list it under components",
        )
    for name, component in spec.components.items():
        if name not in known:
            raise _unknown(where, spec, name, list(known))
        check_component(str(where), component, known[name])
    _check_read(where, spec)
    _check_levels(where, spec)


def _unknown(where: Path | str, spec: ModelSpec, name: str, known: list[str]) -> PackageError:
    return PackageError(
        Reason.UNKNOWN_COMPONENT,
        where,
        f"components.{name}: the family {spec.family!r} has no such component",
        f"Remove or rename it; known: {', '.join(known)}",
    )


def _check_read(where: Path | str, spec: ModelSpec) -> None:
    """A condition that nothing reads would be ignored silently."""
    read = {tensor.name for component in spec.components.values() for tensor in component.inputs}
    if spec.autoregressive is not None:
        read.add(spec.autoregressive.begin_condition or "")
    for condition in spec.conditions:
        if condition.name not in read:
            raise mismatch(
                f"{where}: conditions.{condition.name}",
                "no component has an input of this name",
                "Export the condition as an input of the network, or remove it",
            )


def _check_levels(where: Path | str, spec: ModelSpec) -> None:
    problem = _levels_problem(spec)
    if problem:
        raise PackageError(
            Reason.BAD_VALUE, where, problem, "Correct data.levels, or the section of the family"
        )


def _divides(few: tuple[int, ...], many: tuple[int, ...]) -> bool:
    return len(few) == len(many) and all(large % small == 0 for small, large in zip(few, many, strict=True))


def _levels_problem(spec: ModelSpec) -> str:
    levels = spec.data.levels
    if spec.autoregressive is not None and (levels < 2 or spec.autoregressive.vocabulary < levels):
        return f"autoregressive.vocabulary is {spec.autoregressive.vocabulary}, data.levels {levels}"
    order = spec.autoregressive.order if spec.autoregressive is not None else None
    if order is not None and (spec.data.variable or len(order) != spec.data.elements):
        return f"autoregressive.order has {len(order)} places, but a row has {spec.data.elements} symbols"
    latents = spec.diffusion.latent_shape if spec.diffusion is not None else None
    if latents is not None and not _divides(latents[1:], spec.data.shape[1:]):
        return f"diffusion.latent_shape {list(latents)} does not divide data.shape {list(spec.data.shape)}"
    kind = spec.vae.observation.kind if spec.vae is not None else "gaussian"
    if (kind == "bernoulli" and levels != 2) or (kind != "gaussian" and levels < 2):
        return f"vae.observation.kind {kind} is a probability over levels, but data.levels is {levels}"
    return ""
