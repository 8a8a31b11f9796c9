from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from export.package.components import check_components
from export.package.errors import PackageError, Reason
from export.package.parse import parse_spec

Spec = dict[str, Any]

IMAGE = {"kind": "image", "axes": ["c", "h", "w"], "shape": [1, 2, 2], "dtype": "uint8", "levels": 17}
LABEL = {"name": "label", "kind": "class", "classes": 10}


def tensor(name: str, *shape: int | str, dtype: str = "float32", rows: bool = True) -> Spec:
    return {"name": name, "dtype": dtype, "shape": ["rows", *shape] if rows else list(shape)}


def graph(inputs: list[Spec], outputs: list[Spec]) -> Spec:
    return {"format": "onnx", "file": "g.onnx", "inputs": inputs, "outputs": outputs}


X = tensor("x", 1, 2, 2)
Z = tensor("latent", 4)
TOKENS = tensor("tokens", "length", dtype="int64")
LOGITS = tensor("logits", "length", 17)
VP = {"kind": "vp", "betas": [0.1, 0.2]}
CACHE = {"layers": 1, "kv_heads": 2, "head_dim": 8, "max_length": 5}
PAST = [tensor("past_key_0", 2, 5, 8), tensor("past_value_0", 2, 5, 8)]
PRESENT = [tensor("present_key_0", 2, 5, 8), tensor("present_value_0", 2, 5, 8)]
DECODER = graph(
    [
        tensor("tokens", "new", dtype="int64"),
        tensor("seqlens_k", dtype="int32"),
        tensor("total_sequence_length", dtype="int32", rows=False),
        *PAST,
    ],
    [tensor("logits", "new", 17), *PRESENT],
)
SCALES = [tensor("mean", 1, 2, 2), tensor("log_scale", 1, 1, 1)]
POSTERIOR = [tensor("mean", 4), tensor("log_variance", 4)]

FAMILIES: dict[str, tuple[Spec, dict[str, Spec]]] = {
    "autoregressive": (
        {"vocabulary": 17, "begin_symbol": 17, "cache": CACHE},
        {"scorer": graph([TOKENS], [LOGITS]), "decoder": DECODER},
    ),
    "autoencoder": (
        {"latent_shape": [4]},
        {"encoder": graph([X], [Z]), "decoder": graph([Z], [X])},
    ),
    "vae": (
        {"latent_shape": [4], "observation": {"kind": "discretized_logistic"}},
        {"encoder": graph([X], POSTERIOR), "decoder": graph([Z], SCALES)},
    ),
    "gan": (
        {"latent_shape": [4]},
        {
            "generator": graph([Z], [X]),
            "discriminator": graph([X], [tensor("logit")]),
            "encoder": graph([X], [Z]),
            "generator_vjp": graph([Z, tensor("v", 1, 2, 2)], [X, tensor("latent_vjp", 4)]),
        },
    ),
    "diffusion": (
        {"schedule": VP, "prediction": "epsilon", "time_input": "step"},
        {
            "denoiser": graph(
                [X, tensor("t"), tensor("label", dtype="int64")], [tensor("prediction", 1, 2, 2)]
            )
        },
    ),
}


def model(family: str) -> Spec:
    section, components = copy.deepcopy(FAMILIES[family])
    return {
        "format_version": 1,
        "name": "m",
        "family": family,
        "description": "",
        "license": "none",
        "data": copy.deepcopy(IMAGE),
        "conditions": [LABEL] if family == "diffusion" else [],
        "components": components,
        family: section,
        "parity": {"max_abs_error": 0.0, "max_rel_error": 0.0, "inputs": ""},
        "files": {"g.onnx": "0" * 64},
    }


def check(value: Spec) -> None:
    check_components("model.yaml", parse_spec("model.yaml", value))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_passes_with_its_components(family: str) -> None:
    check(model(family))


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("autoregressive", "scorer"),
        ("autoregressive", "decoder"),
        ("autoencoder", "encoder"),
        ("vae", "decoder"),
        ("gan", "generator"),
        ("diffusion", "denoiser"),
    ],
)
def test_a_component_that_the_family_needs_is_missed(family: str, name: str) -> None:
    value = model(family)
    del value["components"][name]
    with pytest.raises(PackageError) as caught:
        check(value)
    assert caught.value.reason is Reason.MISSING_COMPONENT
    assert name in caught.value.problem


def test_a_component_of_another_family_is_refused() -> None:
    value = model("gan")
    value["components"]["denoiser"] = value["components"]["generator"]
    with pytest.raises(PackageError) as caught:
        check(value)
    assert caught.value.reason is Reason.UNKNOWN_COMPONENT


def _of(component: str, side: str, index: int, **change: object) -> Callable[[Spec], None]:
    return lambda value: value["components"][component][side][index].update(change)


def _drop(name: str, side: str, index: int) -> Callable[[Spec], None]:
    return lambda value: value["components"][name][side].pop(index)


WRONG: list[tuple[str, Callable[[Spec], None], Reason]] = [
    ("gan", _of("generator", "inputs", 0, shape=["rows", 5]), Reason.WRONG_SHAPE),
    ("gan", _of("generator", "inputs", 0, shape=[8, 4]), Reason.WRONG_SHAPE),
    ("gan", _of("generator", "inputs", 0, shape=["batch", 4]), Reason.WRONG_SHAPE),
    ("gan", _of("generator", "outputs", 0, shape=["rows", 1, 2]), Reason.WRONG_SHAPE),
    ("gan", _of("generator", "outputs", 0, shape=["rows", 1, "h", 2]), Reason.WRONG_SHAPE),
    ("gan", _of("generator", "outputs", 0, name="image"), Reason.GRAPH_MISMATCH),
    ("gan", _of("generator", "outputs", 0, dtype="uint8"), Reason.GRAPH_MISMATCH),
    ("gan", _of("generator_vjp", "inputs", 1, shape=["rows", 4]), Reason.WRONG_SHAPE),
    ("gan", _drop("generator_vjp", "inputs", 1), Reason.GRAPH_MISMATCH),
    ("diffusion", _of("denoiser", "inputs", 2, name="class"), Reason.GRAPH_MISMATCH),
    ("diffusion", _of("denoiser", "inputs", 2, dtype="float32"), Reason.GRAPH_MISMATCH),
    ("diffusion", _drop("denoiser", "inputs", 1), Reason.GRAPH_MISMATCH),
    ("diffusion", lambda v: v["diffusion"].update(variance="learned_range"), Reason.WRONG_SHAPE),
    ("autoregressive", _of("scorer", "outputs", 0, shape=["rows", "length", 16]), Reason.WRONG_SHAPE),
    ("autoregressive", _of("decoder", "inputs", 2, shape=["rows"]), Reason.WRONG_SHAPE),
    ("autoregressive", _of("decoder", "inputs", 3, shape=["rows", 2, 6, 8]), Reason.WRONG_SHAPE),
    ("autoregressive", lambda v: v["data"].update(levels=20), Reason.BAD_VALUE),
    ("vae", _drop("decoder", "outputs", 1), Reason.GRAPH_MISMATCH),
    ("vae", lambda v: v["vae"]["observation"].update(kind="bernoulli"), Reason.GRAPH_MISMATCH),
    ("vae", lambda v: v["data"].update(levels=0), Reason.BAD_VALUE),
    ("autoencoder", lambda v: v["conditions"].append(LABEL), Reason.GRAPH_MISMATCH),
]


@pytest.mark.parametrize(("family", "change", "reason"), WRONG)
def test_a_component_that_does_not_fit_is_refused(
    family: str, change: Callable[[Spec], None], reason: Reason
) -> None:
    value = model(family)
    change(value)
    with pytest.raises(PackageError) as caught:
        check(value)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v["data"].update(shape=[0, 2, 2]),
        lambda v: v["data"].update(transform={"kind": "affine", "scale": [1.0, 1.0], "shift": [0.0, 0.0]}),
        lambda v: v["data"].update(levels=300),
        lambda v: v["diffusion"].update(prediction="edm"),
        lambda v: v["diffusion"].update(clip_range=[1.0, -1.0]),
        lambda v: v["diffusion"].update(clip_default=True),
        lambda v: v["conditions"].append(LABEL),
    ],
)
def test_a_section_that_contradicts_itself_is_refused(change: Callable[[Spec], None]) -> None:
    value = model("diffusion")
    change(value)
    with pytest.raises(PackageError) as caught:
        check(value)
    assert caught.value.reason is Reason.BAD_VALUE
