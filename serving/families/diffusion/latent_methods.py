"""What a latent diffusion model can be asked: as other ones, but for what latents rule out or add."""

from __future__ import annotations

from dataclasses import replace

from serving.families.capability import Capability, Method, Parameter, undefined
from serving.families.diffusion.latents import DIRECT
from serving.families.request import Operation

NO_DENSITY = (
    "the process gives latents a density, and the decoder gives pixels none: what is known of the latents is "
    "no likelihood of the image; use a model that works on pixels, or ScoreAnomaly"
)
ADDED: dict[Operation, tuple[Parameter, ...]] = {
    Operation.ENCODE: (Parameter("round_trip", "bool", False),),
    Operation.DECODE: (),
    Operation.RECONSTRUCT: (),
}


def in_latents(capability: Capability) -> Capability:
    """A capability of the process itself, as the whole model has it."""
    operation = capability.operation
    if operation is Operation.LIKELIHOOD:
        return undefined(operation, NO_DENSITY)
    if operation is Operation.INPAINT:
        return Capability(operation, _approximate(capability.methods))
    methods = tuple(_without(method, "score_map", "round_trip") for method in capability.methods)
    if operation in ADDED:
        direct = Method(
            DIRECT, "POINT_ESTIMATE", ADDED[operation], True, "Rombach et al. 2022; the mean code"
        )
        methods = (direct, *(replace(method, is_default=False) for method in methods))
    return Capability(operation, methods)


def _approximate(methods: tuple[Method, ...]) -> tuple[Method, ...]:
    """Particles would converge to a law given latents, which is not the law given pixels."""
    kept = [method for method in methods if method.kind == "APPROXIMATE"]
    return tuple(replace(method, is_default=place == 0) for place, method in enumerate(kept))


def _without(method: Method, *names: str) -> Method:
    return replace(method, parameters=tuple(p for p in method.parameters if p.name not in names))
