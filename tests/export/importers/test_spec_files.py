"""A specification file: strictly read, and every refusal shows the line to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.importers.lines import FAMILIES, NETWORKS, OPTIONAL_NETWORKS, suggestion
from export.importers.spec_file import CLASSES, read_specification
from export.importers.template import template
from export.model import Diffusion, Gan, Graph, Vae
from export.package.errors import PackageError
from export.package.graphs import GraphInfo, GraphTensor

VAE = """
family: vae
name: my-vae
license: MIT
data: {kind: image, channels: 1, height: 8, width: 8, levels: 17, data_range: [-1, 1]}
conditions:
  - {kind: class, name: label, classes: 10, null_value: 10}
networks:
  encoder: {file: enc.onnx, inputs: {x: input}, outputs: {mean: mu, log_variance: logvar}}
  decoder: {file: graphs/dec.onnx, layout: flat}
vae:
  posterior: mean_logvar
  observation: {kind: discretized_logistic, scale: log_scale}
  latent_shape: [16]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "model.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str, **overrides: object) -> str:
    with pytest.raises(PackageError) as caught:
        read_specification(write(folder, text), dict(overrides), {})
    return str(caught.value)


def test_a_file_is_the_class_with_the_same_keys(tmp_path: Path) -> None:
    name, model = read_specification(write(tmp_path, VAE), {}, {})
    assert name == "my-vae"
    assert isinstance(model, Vae)
    assert isinstance(model.encoder, Graph)
    assert model.encoder.file == tmp_path / "enc.onnx"
    assert isinstance(model.decoder, Graph)
    assert model.decoder.file == tmp_path / "graphs/dec.onnx"
    assert model.section()["latent_shape"] == [16]
    assert model.conditions[0].section()["null_value"] == 10


def test_files_of_the_command_line_come_first(tmp_path: Path) -> None:
    given = {"encoder": tmp_path / "other.onnx"}
    _, model = read_specification(write(tmp_path, VAE), {}, given)
    assert isinstance(model, Vae)
    assert isinstance(model.encoder, Graph)
    assert model.encoder.file == tmp_path / "other.onnx"


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("  posterior: mean_logvar\n", "", "vae.posterior is missing. Add  posterior: mean_logvar"),
        ("mean_logvar", "mean_lv", "vae.posterior: Input should be 'mean_logvar'"),
        ("levels: 17, ", "", "data.levels is missing. Add  levels: 256"),
        ("levels: 17", "level: 17", "data.level: no such key. Remove it; did you mean 'levels'"),
        ("levels: 17, data_range: [-1, 1]", "levels: 17", "it is not stated how the networks see the pixels"),
        ("height: 8", "height: eight", "data.height: Input should be a valid integer"),
        ("layout: flat", "layout: flatt", "networks.decoder.layout: Input should be 'channels_first'"),
        (
            "layout: flat",
            "layuot: flat",
            "networks.decoder.layuot: no such key. Remove it; did you mean 'layout'",
        ),
        ("  posterior:", "  posteriors:", "vae.posteriors: no such key. Remove it; did you mean 'posterior'"),
        ("latent_shape: [16]", "latent_shape: [16]\n  beta: 2", "vae.beta: no such key"),
        ("license: MIT", "licence: MIT", "licence: no such key. Remove it; did you mean 'license'"),
        ("  decoder: {file: graphs/dec.onnx, layout: flat}\n", "", "networks.decoder is missing"),
        ("  decoder: {", "  decoders: {", "networks.decoders: no such key. Remove it; did you mean"),
        (
            "family: vae",
            "family: vea",
            "family is 'vea'. One of autoregressive, autoencoder, vae, gan, diffusion",
        ),
        ("[16]", "DECIDE", "vae.latent_shape still says DECIDE. Decide, for example:  latent_shape: [128]"),
        (
            "kind: discretized_logistic, scale: log_scale",
            "kind: normal",
            "vae.observation: Input tag 'normal'",
        ),
        ("vae:\n  posterior: mean_logvar\n", "vae: 7\nnetworks2:\n", "networks2: no such key"),
        ("latent_shape: [16]", "latent_shape: [16]\n  latent_shape: [8]", "appears twice"),
        ("license: MIT", "license: &a MIT\ndescription: *a", "anchors and aliases"),
        ("networks:", "networks: [", "not YAML in UTF-8"),
    ],
)
def test_what_is_wrong_is_named_with_the_line_to_write(
    tmp_path: Path, old: str, new: str, shown: str
) -> None:
    assert old in VAE
    assert shown in refused(tmp_path, VAE.replace(old, new, 1))


def test_flags_fill_what_is_open_and_contradict_nothing(tmp_path: Path) -> None:
    open_file = VAE.replace("levels: 17, data_range: [-1, 1]", "levels: DECIDE")
    flags = {"data.levels": 17, "data.data_range": [0.0, 1.0], "license": "MIT"}
    _, model = read_specification(write(tmp_path, open_file), flags, {})
    assert model.data_section()["transform"] == {"kind": "affine", "scale": [0.0625], "shift": [0.0]}
    text = refused(tmp_path, VAE, **{"data.levels": 256})
    assert "data.levels is 17, but the flag says 256" in text


def test_a_diffusion_model_reads_its_schedule(tmp_path: Path) -> None:
    text = """
family: diffusion
license: MIT
data: {kind: vector, size: 3}
networks: {denoiser: {file: d.onnx}}
diffusion:
  schedule: {kind: betas, values: [0.1, 0.2]}
  prediction: v
  time: fraction
"""
    _, model = read_specification(write(tmp_path, text), {}, {})
    assert isinstance(model, Diffusion)
    assert model.section()["schedule"] == {"kind": "vp", "betas": [0.1, 0.2]}
    assert "does not go with schedule" in refused(tmp_path, text.replace("prediction: v", "prediction: flow"))
    assert "schedule.values is missing" in refused(tmp_path, text.replace(", values: [0.1, 0.2]", ""))
    assert "steps: Input should be greater" in refused(
        tmp_path, text.replace("betas, values: [0.1, 0.2]", "cosine_betas, steps: 1")
    )


@pytest.mark.parametrize("family", list(CLASSES))
def test_a_template_filled_with_its_own_suggestions_is_a_specification(tmp_path: Path, family: str) -> None:
    lines = template(family, {}, {}).splitlines()
    filled = [
        line.replace("DECIDE", suggestion(line.split(":")[0].strip()).split(": ", 1)[1].split("  #")[0], 1)
        if "DECIDE" in line.split("#")[0]
        else line
        for line in lines
    ]
    text = "\n".join(filled)
    if family == "autoregressive":
        text = text.replace("vocabulary: 50257", "vocabulary: 256")
    if family == "vae":
        text = text.replace("levels: 256", "levels: 2")
    _, model = read_specification(write(tmp_path, text), {}, {})
    assert model.family == family
    for name in NETWORKS[family]:
        wanted = name not in OPTIONAL_NETWORKS.get(family, ())
        assert (getattr(model, name) is not None) == wanted


def test_an_unfilled_template_names_its_first_open_line(tmp_path: Path) -> None:
    assert "license still says DECIDE. Decide, for example:  license: MIT" in refused(
        tmp_path, template("gan", {}, {})
    )


def test_a_template_holds_what_the_graph_says(tmp_path: Path) -> None:
    image, latent = (
        GraphTensor("pixels", "float32", (None, 3, 32, 16)),
        GraphTensor("z", "float32", (None, 8)),
    )
    graphs = {
        "encoder": GraphInfo((image,), (latent,), ()),
        "decoder": GraphInfo((latent,), (GraphTensor("first", "float32", None), latent), ()),
    }
    text = template("autoencoder", {"encoder": Path("e.onnx")}, graphs)
    assert "channels: 3" in text
    assert "width: 16" in text
    assert "file: e.onnx" in text
    assert "inputs: {x: pixels}" in text
    assert "outputs: {x: DECIDE}" in text
    assert "the graph has first float32; z float32 [?, 8]" in text
    assert "latent_shape: [8]" in text


def test_every_key_of_a_section_has_its_line() -> None:
    skipped = {"sampler", "steps", "cached", "end_symbol", "decoder_range", "license", "description"}
    for family, kind in CLASSES.items():
        names = set(kind.__dataclass_fields__) - set(NETWORKS[family]) - {"data", "conditions"} - skipped
        assert names == set(FAMILIES[family]), family
    assert isinstance(Gan.__doc__, str)
