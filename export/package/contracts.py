"""Which components each family has, and what they take and give (the docstrings of ``schema`` as data)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from export.package.ports import Contract, Kind, Port
from export.package.schema import Condition, ModelSpec, Observation

VJP = "_vjp"


def contracts(spec: ModelSpec) -> tuple[Contract, ...]:
    """The components that a package of this family may have; the required ones first."""
    found = _FAMILIES[spec.family](spec)
    return (*found, *(_product(spec, contract) for contract in found))


def _product(spec: ModelSpec, of: Contract) -> Contract:
    """``NAME_vjp``: NAME's inputs, then one cotangent per output in their order -> ..., product.

    Its last output is the product with respect to NAME's first input; before it may come NAME's outputs.
    Cotangents and the product are known by position, so their names are the package's own.
    """
    name = of.component + VJP
    base, vjp = spec.components.get(of.component), spec.components.get(name)
    if base is None or vjp is None:
        return Contract(name, (), (), required=False)
    own = {tensor.name for tensor in base.inputs}
    slots = [tensor.name for tensor in vjp.inputs if tensor.name not in own]
    sources = [port for output in base.outputs for port in of.outputs if port.name == output.name]
    cotangents = tuple(
        Port(
            slots[i] if i < len(slots) else f"cotangent_{port.name}",
            "real",
            port.shape,
            broadcasts=port.broadcasts,
        )
        for i, port in enumerate(sources)
    )
    product = Port(vjp.outputs[-1].name if vjp.outputs else "product", "real", of.inputs[0].shape)
    repeated = tuple(
        Port(p.name, p.kind, p.shape, broadcasts=p.broadcasts, optional=True) for p in of.outputs
    )
    return Contract(name, of.inputs + cotangents, (*repeated, product), required=False)


def _conditions(spec: ModelSpec, *, optional: bool = True) -> tuple[Port, ...]:
    begin = spec.autoregressive.begin_condition if spec.autoregressive else None
    return tuple(_condition(c, optional) for c in spec.conditions if c.name != begin)


def _condition(condition: Condition, optional: bool) -> Port:
    if condition.kind == "class":
        return Port(condition.name, "integer", optional=optional)
    return Port(condition.name, "real", condition.shape, optional=optional)


def _data(name: str, spec: ModelSpec) -> Port:
    return Port(name, "real", spec.data.shape)


def _autoregressive(spec: ModelSpec) -> tuple[Contract, ...]:
    section = spec.autoregressive
    assert section is not None
    length = None if spec.data.variable else spec.data.elements
    tokens = Port("tokens", "int64", (length,))
    logits = Port("logits", "real", (length, section.vocabulary))
    selective = scores_itself(spec)
    scorer = Contract("scorer", (tokens, *_conditions(spec)), (logits,), required=not selective)
    return (scorer,) if section.cache is None else (scorer, _cached_decoder(spec, selective))


def scores_itself(spec: ModelSpec) -> bool:
    """Whether the decoder gives predictions where they are wanted, so that it needs no scorer beside it."""
    decoder = spec.components.get("decoder")
    ours = spec.autoregressive is not None and spec.autoregressive.cache is not None
    return ours and decoder is not None and any(tensor.name == "wanted" for tensor in decoder.inputs)


def _cached_decoder(spec: ModelSpec, selective: bool) -> Contract:
    assert spec.autoregressive is not None
    assert spec.autoregressive.cache is not None
    cache, size = spec.autoregressive.cache, spec.autoregressive.vocabulary
    layers = [f"{part}_{layer}" for layer in range(cache.layers) for part in ("key", "value")]
    shape = (cache.kv_heads, None if selective else cache.max_length, cache.head_dim)
    inputs = (
        Port("tokens", "int64", (None,)),
        Port("seqlens_k", "int32"),
        Port("total_sequence_length", "int32", scalar=True),
        *((_prediction("wanted", "int64"), _prediction("targets", "int64")) if selective else ()),
    )
    logits = _prediction("logits", "real", (size,)) if selective else Port("logits", "real", (None, size))
    log_prob = (_prediction("log_prob", "real"),) if selective else ()
    return Contract(
        "decoder",
        (*inputs, *(Port(f"past_{layer}", "real", shape) for layer in layers)),
        (logits, *log_prob, *(Port(f"present_{layer}", "real", shape) for layer in layers)),
    )


def _prediction(name: str, kind: Kind, shape: tuple[int | None, ...] = ()) -> Port:
    return Port(name, kind, shape, first="predictions")


def _autoencoder(spec: ModelSpec) -> tuple[Contract, ...]:
    assert spec.autoencoder is not None
    latent = Port("latent", "real", spec.autoencoder.latent_shape)
    given = _conditions(spec)
    return (
        Contract("encoder", (_data("x", spec), *given), (latent,)),
        Contract("decoder", (latent, *given), (_data("x", spec),)),
    )


def _vae(spec: ModelSpec) -> tuple[Contract, ...]:
    assert spec.vae is not None
    shape = spec.vae.latent_shape
    posterior = (Port("mean", "real", shape), Port("log_variance", "real", shape))
    given = _conditions(spec)
    return (
        Contract("encoder", (_data("x", spec), *given), posterior),
        Contract("decoder", (Port("latent", "real", shape), *given), _observed(spec, spec.vae.observation)),
    )


def _observed(spec: ModelSpec, observation: Observation) -> tuple[Port, ...]:
    """The decoder's outputs under each observation model."""
    if observation.kind == "bernoulli":
        return (_data("logits", spec),)
    if observation.kind == "categorical":
        return (Port("logits", "real", (spec.data.levels, *spec.data.shape)),)
    scale = Port("log_scale", "real", spec.data.shape, broadcasts=True)
    fixed = observation.kind == "gaussian" and observation.scale is not None
    return (_data("mean", spec),) if fixed else (_data("mean", spec), scale)


def _gan(spec: ModelSpec) -> tuple[Contract, ...]:
    assert spec.gan is not None
    latent = Port("latent", "real", spec.gan.latent_shape)
    x, given = _data("x", spec), _conditions(spec)
    return (
        Contract("generator", (latent, *given), (x,)),
        Contract("discriminator", (x, *given), (Port("logit", "real"),), required=False),
        Contract("encoder", (x, *given), (latent,), required=False),
    )


def _diffusion(spec: ModelSpec) -> tuple[Contract, ...]:
    assert spec.diffusion is not None
    latents = spec.diffusion.latent_shape
    channels, *rest = shape = latents or spec.data.shape
    learned = spec.diffusion.variance == "learned_range"
    prediction = Port("prediction", "real", (channels * 2 if learned else channels, *rest))
    inputs = (Port("x", "real", shape), Port("t", "number"), *_conditions(spec, optional=False))
    found = [Contract("denoiser", inputs, (prediction,)), *_text_encoder(spec)]
    if latents is not None:
        x, latent = _data("x", spec), Port("latent", "real", latents)
        found += [Contract("encoder", (x,), (latent,)), Contract("decoder", (latent,), (x,))]
    return tuple(found)


def _text_encoder(spec: ModelSpec) -> Iterator[Contract]:
    for condition in spec.conditions:
        if condition.kind == "text":
            tokens = Port("tokens", "int64", condition.shape[:1])
            yield Contract("text_encoder", (tokens,), (Port("hidden", "real", condition.shape),))


_FAMILIES: dict[str, Callable[[ModelSpec], tuple[Contract, ...]]] = {
    "autoregressive": _autoregressive,
    "autoencoder": _autoencoder,
    "vae": _vae,
    "gan": _gan,
    "diffusion": _diffusion,
}
