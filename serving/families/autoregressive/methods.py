"""What autoregressive models are asked: operations, methods, parameters."""

from __future__ import annotations

from serving.families.autoregressive.anomaly import SURPRISAL, TYPICALITY
from serving.families.autoregressive.symbols import Alphabet
from serving.families.autoregressive.transform import MIDPOINT, RANDOMIZED
from serving.families.capability import Capability, Method, Parameter, undefined
from serving.families.entropy import ENTROPY
from serving.families.latent.paths import PATHS
from serving.families.request import Operation

DRAWING: tuple[Parameter, ...] = (
    Parameter("temperature", "float", 1.0, minimum=0.0, maximum=100.0),
    Parameter("top_k", "int", 0, minimum=0),
    Parameter("top_p", "float", 1.0, minimum=1e-6, maximum=1.0),
    Parameter("min_p", "float", 0.0, minimum=0.0, maximum=1.0),
)
PER_DIMENSION = Parameter("per_dimension", "bool", False)
SCORE_MAP = Parameter("score_map", "bool", False)
ROUND_TRIP = Parameter("round_trip", "bool", False)
MOMENTS = Parameter("moments", "bool", False)
PROMPT = Parameter("prompt", "bool", None)
OBSERVED = Parameter("observed", "bool", None)  # the chain rule scores any set of given entries

CHAIN_RULE = "Bengio and Bengio 2000, chain rule"
ROSENBLATT = "Rosenblatt 1952"
PARTICLES = "Naesseth, Lindsten and Schoen 2019"


def capabilities(alphabet: Alphabet) -> tuple[Capability, ...]:
    """One Capability per operation, in the order of the enum."""
    return (
        _sample(alphabet),
        _likelihood(),
        _inpaint(alphabet),
        _anomaly(),
        *(_latent(alphabet, operation) for operation in (Operation.ENCODE, Operation.DECODE)),
        *(_latent(alphabet, operation) for operation in (Operation.RECONSTRUCT, Operation.INTERPOLATE)),
    )


def _sample(alphabet: Alphabet) -> Capability:
    parameters = (*DRAWING, PROMPT)
    if alphabet.variable:
        parameters += (Parameter("max_new_tokens", "int", None, minimum=1, maximum=alphabet.length),)
    if alphabet.variable and alphabet.section.tokenizer != "none":
        parameters += (Parameter("stop", "strings", ()),)
    method = Method("ancestral", "EXACT", parameters, is_default=True, reference=CHAIN_RULE)
    return Capability(Operation.SAMPLE, (method,))


def _likelihood() -> Capability:
    budget = (
        Parameter("importance_samples", "int", 256, minimum=16, maximum=65_536),
        Parameter("target_standard_error", "float", None, minimum=1e-6, maximum=1e3),
        Parameter("max_network_evaluations", "int", None, minimum=1, maximum=1e9),
        OBSERVED,
    )
    exact = Method("exact", "EXACT", (PER_DIMENSION, OBSERVED), is_default=True, reference=CHAIN_RULE)
    smc = Method("smc", "STOCHASTIC_LOWER_BOUND", budget, reference=PARTICLES)
    return Capability(Operation.LIKELIHOOD, (exact, smc))


def _inpaint(alphabet: Alphabet) -> Capability:
    moments = (MOMENTS, ENTROPY) if alphabet.data.kind == "image" else (ENTROPY,)
    particles = (Parameter("particles", "int", 64, minimum=1, maximum=4096), *moments)
    return Capability(
        Operation.INPAINT,
        (
            Method("smc", "CONSISTENT", particles, is_default=True, reference=PARTICLES),
            Method("enumerate", "EXACT", moments, reference="Bayes' rule over every completion"),
            Method("left_to_right", "APPROXIMATE", reference="ignores what is known to the right"),
        ),
    )


def _anomaly() -> Capability:
    typicality = Method(TYPICALITY, "EXACT", (SCORE_MAP,), is_default=True, reference="Nalisnick et al. 2019")
    surprisal = Method(SURPRISAL, "EXACT", (SCORE_MAP,), reference="-log p(x), one-sided: see Nalisnick 2018")
    return Capability(Operation.SCORE_ANOMALY, (typicality, surprisal))


def _latent(alphabet: Alphabet, operation: Operation) -> Capability:
    if alphabet.variable:
        return undefined(operation, UNSHAPED)
    parameters: tuple[Parameter, ...] = ()
    if operation is Operation.ENCODE:
        parameters = (ROUND_TRIP,)
    if operation is Operation.INTERPOLATE:
        parameters = (
            Parameter("points", "int", 8, minimum=2, maximum=1024),
            Parameter("path", "string", "slerp", choices=tuple(sorted(PATHS))),
        )
    methods = [Method(MIDPOINT, "EXACT", parameters, is_default=True, reference=ROSENBLATT)]
    if operation is Operation.ENCODE:
        methods.append(Method(RANDOMIZED, "EXACT", parameters, reference=ROSENBLATT))
    return Capability(operation, tuple(methods))


UNSHAPED = (
    "rows differ in length, so their conditional distribution functions have no latent of one shape; "
    "use Likelihood with per_dimension to see each symbol, or Sample with a prompt"
)
