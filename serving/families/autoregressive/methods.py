"""What autoregressive models are asked: operations, methods, parameters."""

from __future__ import annotations

from serving.families.autoregressive.symbols import Alphabet
from serving.families.capability import Capability, Method, Parameter
from serving.families.request import Operation

DRAWING: tuple[Parameter, ...] = (
    Parameter("temperature", "float", 1.0, minimum=0.0, maximum=100.0),
    Parameter("top_k", "int", 0, minimum=0),
    Parameter("top_p", "float", 1.0, minimum=1e-6, maximum=1.0),
    Parameter("min_p", "float", 0.0, minimum=0.0, maximum=1.0),
)


def capabilities(alphabet: Alphabet) -> tuple[Capability, ...]:
    """One Capability per operation, in the order of the enum."""
    return (_sample(alphabet), _likelihood())


def _sample(alphabet: Alphabet) -> Capability:
    parameters = DRAWING
    if alphabet.variable:
        parameters += (Parameter("max_new_tokens", "int", None, minimum=1, maximum=alphabet.length),)
    if alphabet.variable and alphabet.section.tokenizer == "bytes":
        parameters += (Parameter("stop", "strings", ()),)
    method = Method("ancestral", "EXACT", parameters, is_default=True, reference="chain rule")
    return Capability(Operation.SAMPLE, (method,))


def _likelihood() -> Capability:
    per_dimension = Parameter("per_dimension", "bool", False)
    exact = Method("exact", "EXACT", (per_dimension,), is_default=True, reference="chain rule")
    return Capability(Operation.LIKELIHOOD, (exact,))
