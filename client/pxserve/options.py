"""Keyword arguments of the calls; None means absent, so that the package's default is used."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict, get_args, get_type_hints

from numpy.typing import ArrayLike


class CallOptions(TypedDict, total=False):
    """Of every call: ``timeout_s`` becomes the deadline, ``request_id`` the metadata entry x-request-id.

    ``priority``: requests with a higher one go first, as far as the token allows; 0 where it is absent.
    """

    version: int | None
    request_id: str | None
    timeout_s: float | None
    priority: int | None


class DrawOptions(CallOptions, total=False):
    """Of every call that draws or scores: row i draws from (``seed``, ``first_row`` + i).

    ``label`` is the class condition: one, or one per row. ``conditions`` are by name; None is the null value.
    """

    seed: int | None
    first_row: int
    label: ArrayLike | None
    conditions: Mapping[str, ArrayLike | None] | None


class SamplerOptions(DrawOptions, total=False):
    """Parameters of samplers; a model accepts those that ``get_model`` lists.

    ``guidance_scale`` s means u + s (c - u); 1 is none. ``dynamic_threshold`` in (0, 1] is the quantile of
    each row's estimate of the clean data that bounds it at each step.
    """

    sampler: str | None
    steps: int | None
    guidance_scale: float | None
    guidance_rescale: float | None
    eta: float | None
    clip: bool | None
    dynamic_threshold: float | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    max_new_tokens: int | None
    stop: str | Sequence[str] | None
    truncation: float | None
    observation_noise: bool | None


class SampleOptions(SamplerOptions, total=False):
    """Of ``sample``: ``prompt`` is the beginning that is kept; ``validate_only`` predicts the cost."""

    prompt: ArrayLike | None
    validate_only: bool


class LikelihoodOptions(DrawOptions, total=False):
    """Of ``likelihood``: ``observed`` (bool, true = given) restricts it to ln p of these entries."""

    method: str | None
    observed: ArrayLike | None
    steps: int | None
    importance_samples: int | None
    probes: int | None
    dequantization: str | None
    target_standard_error: float | None
    max_network_evaluations: int | None
    per_dimension: bool
    surrogate_sigma: float | None
    validate_only: bool


class InpaintOptions(SamplerOptions, total=False):
    """Of ``inpaint``; ``moments`` also returns mean and variance of each entry, ``entropy`` its entropy."""

    method: str | None
    particles: int | None
    sweeps: int | None
    jump_length: int | None
    resamplings: int | None
    moments: bool
    entropy: bool
    validate_only: bool


class AnomalyOptions(DrawOptions, total=False):
    """Of ``score_anomaly``; ``score_map`` also returns the score of each entry."""

    method: str | None
    score_map: bool


class EncodeOptions(DrawOptions, total=False):
    """Of ``encode``; ``round_trip`` also decodes and returns the error."""

    method: str | None
    steps: int | None
    round_trip: bool


class ReconstructOptions(DrawOptions, total=False):
    """Of ``reconstruct``."""

    steps: int | None


class InterpolateOptions(SamplerOptions, total=False):
    """Of ``interpolate``; ``path`` names the geometry."""

    path: str | None


@functools.cache
def signature(build: Callable[..., Any]) -> inspect.Signature:
    """Signature of ``build`` with its ``**options`` written out: its own first, then every call's."""
    plain = inspect.signature(build)
    named = [p for p in plain.parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = _options(build)
    shown = {name: getattr(hint, "__forward_arg__", hint) for name, hint in options.items()}
    keywords = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_ABSENT.get(hint), annotation=hint)
        for name, hint in sorted(shown.items(), key=lambda item: item[0] in DrawOptions.__annotations__)
    ]
    return plain.replace(parameters=[*named, *keywords])


def check_names(build: Callable[..., Any], keywords: Iterable[str]) -> None:
    """Raise TypeError for a keyword that ``build`` does not have: ``**options`` alone would swallow it."""
    known = signature(build).parameters
    for name in keywords:
        if name not in known:
            raise TypeError(f"{build.__name__}() got an unexpected keyword argument {name!r}")


def hints(build: Callable[..., Any]) -> dict[str, Any]:
    """Types of all parameters of ``build``, by name."""
    explicit = get_type_hints(build)
    unpacked = explicit.pop("options", None)
    return explicit if unpacked is None else {**explicit, **get_type_hints(get_args(unpacked)[0])}


def _options(build: Callable[..., Any]) -> dict[str, Any]:
    unpacked = get_type_hints(build).get("options")
    return {} if unpacked is None else dict(get_args(unpacked)[0].__annotations__)


_ABSENT = {"bool": False, "int": 0}
