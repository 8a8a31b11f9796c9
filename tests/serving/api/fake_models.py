"""A folder of packages: an image model that answers everything, a text model, and a GAN of vectors."""

from __future__ import annotations

from pathlib import Path

from export.package.errors import PackageError, Reason
from export.package.read import Package
from export.package.schema import (
    Autoregressive,
    Component,
    Condition,
    DataSpace,
    Gan,
    ModelSpec,
    Observation,
    Parity,
    TensorSpec,
    Vae,
)
from serving.families.capability import Capability, Method, Parameter, undefined
from serving.families.request import Operation

DIGITS, LETTERS, CLOUD = "digits-fake", "text-fake", "cloud-fake"

STEPS = Parameter("steps", "int", 10, minimum=1, maximum=1000)
GUIDANCE = Parameter("guidance_scale", "float", 1.0, minimum=0.0, maximum=20.0)


def _spec(name: str, family: str, data: DataSpace, **sections: object) -> ModelSpec:
    port = TensorSpec(name="x", dtype="float32", shape=("rows", 4))
    component = Component(format="onnx", file="net.onnx", inputs=(port,), outputs=(port,))
    return ModelSpec.model_validate(
        {
            "format_version": 1,
            "name": name,
            "family": family,
            "description": f"a fake {family}",
            "license": "Apache-2.0",
            "data": data,
            "components": {"net": component},
            "parity": Parity(max_abs_error=0.0, max_rel_error=0.0, inputs="none"),
            "files": {"net.onnx": "0" * 64},
            **sections,
        }
    )


SPECS = {
    DIGITS: _spec(
        DIGITS,
        "vae",
        DataSpace(
            kind="image", axes=("channel", "height", "width"), shape=(1, 8, 8), dtype="uint8", levels=17
        ),
        conditions=(Condition(name="label", kind="class", classes=10, null_value=10, when_absent="null"),),
        vae=Vae(latent_shape=(4,), observation=Observation(kind="bernoulli")),
    ),
    LETTERS: _spec(
        LETTERS,
        "autoregressive",
        DataSpace(kind="tokens", axes=("position",), shape=(-1,), dtype="int32", levels=257, max_length=32),
        autoregressive=Autoregressive(vocabulary=257, begin_symbol=256, tokenizer="bytes"),
    ),
    CLOUD: _spec(
        CLOUD,
        "gan",
        DataSpace(kind="vector", axes=("entry",), shape=(3,), dtype="float32"),
        conditions=(Condition(name="style", kind="vector", shape=(2,)),),
        gan=Gan(latent_shape=(2,)),
    ),
}

LATENT = DataSpace(kind="vector", axes=("latent",), shape=(4,), dtype="float32")


def _digits_capabilities() -> tuple[Capability, ...]:
    per_dimension = Parameter("per_dimension", "bool", False)
    mode = Parameter("dequantization", "string", "none", choices=("none", "uniform"))
    return (
        Capability(
            Operation.SAMPLE,
            (
                Method("ddim", "DISCRETIZED", (STEPS, GUIDANCE), is_default=True),
                Method("ddpm", "DISCRETIZED", (STEPS, GUIDANCE, Parameter("eta", "float", 1.0, 0.0, 1.0))),
            ),
        ),
        Capability(
            Operation.LIKELIHOOD,
            (
                Method("elbo", "STOCHASTIC_LOWER_BOUND", (per_dimension, mode), is_default=True),
                Method("marginal", "EXACT", (Parameter("observed", "bool", None),)),
            ),
        ),
        Capability(
            Operation.INPAINT,
            (
                Method(
                    "replace", "APPROXIMATE", (STEPS, Parameter("sweeps", "int", 2, 1, 9)), is_default=True
                ),
            ),
        ),
        *_latent_capabilities(),
    )


def _latent_capabilities() -> tuple[Capability, ...]:
    return (
        Capability(
            Operation.SCORE_ANOMALY,
            (Method("score", "ESTIMATE", (Parameter("score_map", "bool", False),), is_default=True),),
        ),
        Capability(
            Operation.ENCODE,
            (Method("mean", "EXACT", (Parameter("round_trip", "bool", False),), is_default=True),),
        ),
        Capability(Operation.DECODE, (Method("mean", "EXACT", (), is_default=True),)),
        Capability(Operation.RECONSTRUCT, (Method("mean", "EXACT", (), is_default=True),)),
        Capability(
            Operation.INTERPOLATE,
            (
                Method("linear", "EXACT", (Parameter("points", "int", 8, 2, 64),), is_default=True),
                Method("spherical", "EXACT", (Parameter("points", "int", 8, 2, 64),)),
            ),
        ),
    )


CAPABILITIES = {
    DIGITS: _digits_capabilities(),
    LETTERS: (
        Capability(
            Operation.SAMPLE,
            (
                Method(
                    "ancestral",
                    "EXACT",
                    (
                        Parameter("temperature", "float", 1.0, 0.0, 10.0),
                        Parameter("max_new_tokens", "int", None, 1, 32),
                        Parameter("stop", "strings", ()),
                        Parameter("prompt", "bool", None),
                    ),
                    is_default=True,
                ),
            ),
        ),
        Capability(Operation.LIKELIHOOD, (Method("exact", "EXACT", (), is_default=True),)),
    ),
    CLOUD: (
        Capability(Operation.SAMPLE, (Method("generator", "EXACT", (), is_default=True),)),
        undefined(Operation.LIKELIHOOD, "a GAN has no density; use ScoreAnomaly"),
    ),
}


def read_fake(folder: Path) -> Package:
    """Any folder NAME/VERSION of a name above is its package."""
    spec = SPECS.get(folder.parent.name)
    if spec is None:
        raise PackageError(Reason.MISSING_KEY, folder / "model.yaml", "it is no package", "Export it again")
    return Package(spec, folder, int(folder.name), "d" * 64)


def models_in(folder: Path, *versions: str) -> Path:
    """Make empty folders NAME/VERSION."""
    for version in versions or tuple(f"{name}/1" for name in SPECS):
        (folder / version).mkdir(parents=True)
    return folder
