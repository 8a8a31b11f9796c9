"""What a diffusion model can be asked, by which methods, with which parameters."""

from __future__ import annotations

from serving.families.capability import Capability, Method, Parameter
from serving.families.diffusion.denoiser import Denoiser
from serving.families.diffusion.samplers.registry import SAMPLERS, Sampler
from serving.families.request import Operation

PREFERRED = {"vp": "ddpm", "ve": "reverse_diffusion", "flow": "heun"}
LARGEST_GUIDANCE = 100.0


def samplers(denoiser: Denoiser) -> tuple[Sampler, ...]:
    """The samplers that are defined for the package's schedule."""
    return tuple(s for s in SAMPLERS.values() if denoiser.schedule in s.schedules)


def default_sampler(denoiser: Denoiser) -> str:
    """The package's own choice, else the schedule's usual one."""
    return denoiser.diffusion.default_sampler or PREFERRED[denoiser.schedule]


def steps_parameter(denoiser: Denoiser, default: int) -> Parameter:
    """Steps of a sampler; a discrete schedule has no more than it was trained with."""
    chosen = denoiser.diffusion.default_steps or default
    most = denoiser.process.count
    return Parameter("steps", "int", min(chosen, most), 1, most)


def shared_parameters(denoiser: Denoiser) -> tuple[Parameter, ...]:
    """Guidance where there is a null condition, and clipping where the package has a range."""
    found: list[Parameter] = []
    if denoiser.guidable:
        found.append(Parameter("guidance_scale", "float", 1.0, 0.0, LARGEST_GUIDANCE))
        found.append(Parameter("guidance_rescale", "float", 0.0, 0.0, 1.0))
    if denoiser.diffusion.clip_range is not None:
        found.append(Parameter("clip", "bool", denoiser.diffusion.clip_default))
    return tuple(found)


def sample(denoiser: Denoiser) -> Capability:
    """One method per sampler."""
    default = default_sampler(denoiser)
    return Capability(
        Operation.SAMPLE, tuple(_sampler(denoiser, s, s.name == default) for s in samplers(denoiser))
    )


def _sampler(denoiser: Denoiser, sampler: Sampler, is_default: bool) -> Method:
    own = (Parameter("eta", "float", 0.0, 0.0, 1.0),) if sampler.takes_eta else ()
    steps = (
        sampler.default_steps if not is_default else denoiser.diffusion.default_steps or sampler.default_steps
    )
    most = denoiser.process.count
    parameters = (Parameter("steps", "int", min(steps, most), 1, most), *shared_parameters(denoiser), *own)
    return Method(sampler.name, "DISCRETIZED", parameters, is_default, sampler.reference)
