"""What a diffusion model can be asked, by which methods, with which parameters."""

from __future__ import annotations

from serving.families.capability import Capability, Method, Parameter
from serving.families.diffusion.anomaly import RECONSTRUCTION, TYPICALITY
from serving.families.diffusion.denoiser import Denoiser
from serving.families.diffusion.flow_density import EXACT_ELEMENTS
from serving.families.diffusion.paths import PATHS
from serving.families.diffusion.refining import PRECISION
from serving.families.diffusion.samplers.registry import SAMPLERS, Sampler
from serving.families.entropy import ENTROPY
from serving.families.request import Operation

PREFERRED = {"vp": "ddpm", "ve": "reverse_diffusion", "flow": "heun"}
LARGEST_GUIDANCE = 100.0
AFFORDABLE_ELEMENTS = 1024  # above it particles are worth less than resampling, and cost more
FEWEST_INVERSION_STEPS = 2


def capabilities(denoiser: Denoiser) -> tuple[Capability, ...]:
    """One per operation, in the order of the enum."""
    return (
        _sample(denoiser),
        _likelihood(denoiser),
        _inpaint(denoiser),
        _anomaly(),
        _single(Operation.ENCODE, _inversion(denoiser, "inversion", Parameter("round_trip", "bool", False))),
        _single(Operation.DECODE, _inversion(denoiser, "heun")),
        _single(Operation.RECONSTRUCT, _inversion(denoiser, "inversion")),
        Capability(Operation.INTERPOLATE, tuple(_path(denoiser, name) for name in PATHS)),
    )


def default_sampler(denoiser: Denoiser) -> str:
    """The package's own choice, else the schedule's usual one."""
    return denoiser.diffusion.default_sampler or PREFERRED[denoiser.schedule]


def _single(operation: Operation, method: Method) -> Capability:
    return Capability(operation, (method,))


def _steps(denoiser: Denoiser, default: int, fewest: int = 1) -> Parameter:
    """A discrete schedule has no more steps than it was trained with."""
    most = denoiser.process.count
    return Parameter("steps", "int", min(default, most), fewest, most)


def _choices(denoiser: Denoiser) -> tuple[Parameter, ...]:
    """Guidance where there is a null condition, and clipping where the package has a range."""
    found: tuple[Parameter, ...] = ()
    if denoiser.guidable:
        found += (Parameter("guidance_scale", "float", 1.0, 0.0, LARGEST_GUIDANCE),)
        found += (Parameter("guidance_rescale", "float", 0.0, 0.0, 1.0),)
    if denoiser.diffusion.clip_range is not None:
        found += (Parameter("clip", "bool", denoiser.diffusion.clip_default),)
    return found


def _threshold(denoiser: Denoiser) -> tuple[Parameter, ...]:
    """Dynamic thresholding needs a range to come back to, and values that are alike (pixels)."""
    if denoiser.data.kind != "image" or denoiser.diffusion.clip_range is None:
        return ()
    default = denoiser.diffusion.threshold_default
    return (Parameter("dynamic_threshold", "float", default, 1e-6, 1.0),)


def _sample(denoiser: Denoiser) -> Capability:
    default = default_sampler(denoiser)
    offered = (
        s for s in SAMPLERS.values() if denoiser.schedule in s.schedules and (s.listed or s.name == default)
    )
    methods = tuple(_sampler(denoiser, s, s.name == default) for s in offered)
    return Capability(Operation.SAMPLE, methods)


def _sampler(denoiser: Denoiser, sampler: Sampler, is_default: bool) -> Method:
    eta = (Parameter("eta", "float", 0.0, 0.0, 1.0),) if sampler.takes_eta else ()
    steps = denoiser.diffusion.default_steps if is_default else None
    parameters = (
        _steps(denoiser, steps or sampler.default_steps),
        *_choices(denoiser),
        *_threshold(denoiser),
        *eta,
    )
    learned = denoiser.learns_variance and sampler.learned is not None
    reference = sampler.reference + ("; Nichol and Dhariwal 2021, eq. 15" if learned else "")
    return Method(sampler.name, "DISCRETIZED", parameters, is_default, reference)


def _likelihood(denoiser: Denoiser) -> Capability:
    bound = Method(
        "variational_bound",
        "STOCHASTIC_LOWER_BOUND",
        (
            _steps(denoiser, denoiser.diffusion.default_steps or 100),
            Parameter("probes", "int", 2, 1, 64),
            Parameter("per_dimension", "bool", False),
            *PRECISION,
        ),
        is_default=True,
        reference="Ho et al. 2020, eq. 5; respaced as Nichol and Dhariwal 2021",
    )
    return Capability(Operation.LIKELIHOOD, (bound, _flow_density(denoiser)))


def _flow_density(denoiser: Denoiser) -> Method:
    parameters: tuple[Parameter, ...] = (Parameter("steps", "int", 24, 2, 1000),)
    levels = denoiser.data.levels > 0
    if denoiser.elements > EXACT_ELEMENTS:
        parameters += (Parameter("probes", "int", 1 if levels else 8, 1, 64),)
    if levels:
        choices = ("none", "uniform", "importance")
        parameters += (Parameter("dequantization", "string", "uniform", choices=choices),)
        parameters += (Parameter("importance_samples", "int", 8, 1, 256),)
    reference = "Song et al. 2021, section 4.3; Grathwohl et al. 2019"
    return Method("probability_flow_ode", "ESTIMATE", (*parameters, *PRECISION), reference=reference)


def _inpaint(denoiser: Denoiser) -> Capability:
    affordable = denoiser.elements <= AFFORDABLE_ELEMENTS
    maps = (Parameter("moments", "bool", False), *((ENTROPY,) if denoiser.data.levels else ()))
    smc = (_steps(denoiser, 50), Parameter("particles", "int", 16, 2, 512), *maps)
    guided = (*_choices(denoiser), *maps)
    jumps = (Parameter("jump_length", "int", 10, 1, 1000), Parameter("resamplings", "int", 5, 1, 100))
    return Capability(
        Operation.INPAINT,
        (
            Method("smc", "CONSISTENT", smc, affordable, "Trippe et al. 2023, SMCDiff"),
            Method(
                "repaint",
                "APPROXIMATE",
                (_steps(denoiser, 50), *jumps, *guided),
                not affordable,
                "Lugmayr et al. 2022",
            ),
            Method(
                "predictor_corrector",
                "APPROXIMATE",
                (_steps(denoiser, 50), Parameter("sweeps", "int", 5, 1, 100), *guided),
                reference="Song et al. 2021, algorithms 4 and 5",
            ),
            Method(
                "replacement",
                "APPROXIMATE",
                (_steps(denoiser, 100), *guided),
                reference="Song et al. 2021, section 5",
            ),
        ),
    )


def _anomaly() -> Capability:
    score_map = (Parameter("score_map", "bool", False),)
    return Capability(
        Operation.SCORE_ANOMALY,
        (
            Method(TYPICALITY, "TWO_SIDED", score_map, True, "Nalisnick et al. 2019"),
            Method(RECONSTRUCTION, "ONE_SIDED", score_map, reference="Graham et al. 2023"),
        ),
    )


def _inversion(denoiser: Denoiser, name: str, *more: Parameter) -> Method:
    steps = _steps(denoiser, 32, FEWEST_INVERSION_STEPS)
    return Method(name, "DISCRETIZED", (steps, *more), True, "Song, Meng and Ermon 2021; Heun's method")


def _path(denoiser: Denoiser, name: str) -> Method:
    points = Parameter("points", "int", 8, 2, 64)
    steps = _steps(denoiser, 32, FEWEST_INVERSION_STEPS)
    reference = "Shoemake 1985; White 2016" if name == "slerp" else ""
    return Method(name, "DISCRETIZED", (points, steps), name == "slerp", reference)
