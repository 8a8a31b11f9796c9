from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc import StatusCode
from PIL import Image

from pxserve.cli import main
from pxserve.cli.flags import COMMANDS, parser
from pxserve.options import signature
from pxserve.v1 import inpaint_pb2, likelihood_pb2, sample_pb2
from tests.client.fake_server import Failure, Script

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _address(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PXSERVE_TARGET", target)


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "rows.npy"
    np.save(path, (np.arange(192) % 17).reshape(3, 1, 8, 8))
    return str(path)


def printed_json(capture: Capture) -> Any:
    return json.loads(capture.readouterr().out)


def test_sample_writes_a_grid_of_enlarged_pictures(tmp_path: Path, script: Script, capsys: Capture) -> None:
    out = tmp_path / "grid.png"
    assert main(["sample", "digits", "-n", "16", "--label", "3", "--seed", "7", "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert picture.size == (4 * 64 + 5 * 4, 4 * 64 + 5 * 4)
        assert picture.getpixel((4, 4)) == (round(7 * 255 / 16),) * 3
        assert picture.getpixel((0, 0)) == (255, 255, 255)
    request = script.last(sample_pb2.StreamSampleRequest).request
    assert (request.n, request.seed, list(request.conditions[0].labels.ids)) == (16, 7, [3])
    assert "kind: discretized" in capsys.readouterr().out


def test_rows_of_a_stream_are_put_in_order(capsys: Capture) -> None:
    assert main(["sample", "digits", "-n", "3", "--seed", "0", "--json"]) == 0
    answer = printed_json(capsys)
    assert [row[0][0][0] for row in answer["data"]] == [0, 1, 2]
    assert answer["provenance"]["seed"] == 0


def test_likelihood_prints_a_table_and_the_kind(rows: str, capsys: Capture) -> None:
    assert main(["likelihood", "digits", "--data", f"{rows}@0:2", "--probes", "4", "--per-dimension"]) == 0
    out = capsys.readouterr().out
    for word in ("log_prob (nats)", "bits/dim", "standard error", "stochastic_lower_bound", "target: model"):
        assert word in out
    assert out.count("0.25") == 2


def test_likelihood_of_texts_as_json(capsys: Capture, script: Script) -> None:
    assert main(["likelihood", "text", "--text", "one", "--text", "two", "--json"]) == 0
    assert printed_json(capsys)["log_prob"] == [-2.0, -2.0]
    assert list(script.last(likelihood_pb2.LikelihoodRequest).data.texts.texts) == ["one", "two"]


def test_a_refusal_prints_message_reason_and_fields_and_exits_1(
    rows: str, script: Script, capsys: Capture
) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="method", description="[none]")
    details = (
        error_details_pb2.ErrorInfo(reason="OPERATION_UNDEFINED"),
        error_details_pb2.BadRequest(field_violations=[violation]),
    )
    failure = Failure(StatusCode.FAILED_PRECONDITION, "a GAN has no density", details)
    script.failures.extend([failure, failure])
    assert main(["likelihood", "digits", "--data", rows]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "FAILED_PRECONDITION (OPERATION_UNDEFINED): a GAN has no density" in printed.err
    assert "method: [none]" in printed.err
    assert main(["likelihood", "digits", "--data", rows, "--json"]) == 1
    error = printed_json(capsys)["error"]
    assert (error["code"], error["reason"]) == ("FAILED_PRECONDITION", "OPERATION_UNDEFINED")
    assert error["field_violations"] == [{"field": "method", "description": "[none]"}]


def test_inpaint_shows_what_was_given_beside_its_completions(
    rows: str, tmp_path: Path, script: Script
) -> None:
    out = tmp_path / "completed.png"
    assert main(["inpaint", "digits", "--data", rows, "--hide", "bottom", "-n", "4", "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert picture.size == (5 * 68 + 4, 3 * 68 + 4)
        assert picture.getpixel((10, 60)) == (70, 95, 150)
    observed = np.frombuffer(script.last(inpaint_pb2.InpaintRequest).observed.data, np.bool_).reshape(8, 8)
    assert observed[:4].all()
    assert not observed[4:].any()


@pytest.mark.parametrize(("side", "given"), [("top", (7, 0)), ("left", (0, 7)), ("right", (7, 0))])
def test_each_half_can_be_hidden(rows: str, script: Script, side: str, given: tuple[int, int]) -> None:
    assert main(["inpaint", "digits", "--data", f"{rows}@0", "--hide", side]) == 0
    raw = script.last(inpaint_pb2.InpaintRequest).observed.data
    observed = np.frombuffer(raw, np.bool_).reshape(8, 8)
    assert observed[given]
    assert observed.sum() == 32


def test_latents_are_saved_and_decoded(rows: str, tmp_path: Path) -> None:
    latents, out = str(tmp_path / "latents.npy"), str(tmp_path / "decoded.png")
    assert main(["encode", "digits", "--data", rows, "--out", latents]) == 0
    assert np.load(latents).shape == (3, 4)
    assert main(["decode", "digits", "--latents", latents, "--out", out]) == 0
    ends = ["--start", f"{rows}@0", "--end", f"{rows}@1"]
    assert main(["interpolate", "digits", *ends, "--points", "5", "--out", out]) == 0
    with Image.open(out) as picture:
        assert picture.size == (5 * 68 + 4, 68 + 4)
    assert main(["reconstruct", "digits", "--data", rows, "--out", out]) == 0
    assert main(["anomaly", "digits", "--data", rows]) == 0


def test_a_picture_is_read_at_the_models_nearest_levels(
    tmp_path: Path, script: Script, capsys: Capture
) -> None:
    levels = np.arange(64).reshape(8, 8) % 17
    path = tmp_path / "digit.png"
    Image.fromarray(np.rint(levels * 255 / 16).astype(np.uint8)).save(path)
    assert main(["likelihood", "digits", "--data", str(path)]) == 0
    tensor = script.last(likelihood_pb2.LikelihoodRequest).data.tensor
    assert np.frombuffer(tensor.data, np.uint8).reshape(8, 8).tolist() == levels.tolist()
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(path)
    assert main(["likelihood", "digits", "--data", str(path)]) == 2
    assert "not resized" in capsys.readouterr().err


def test_models_are_listed_and_described(capsys: Capture) -> None:
    assert main(["models"]) == 0
    listed = capsys.readouterr().out
    assert "image 1×8×8 uint8, 17 levels" in listed
    assert "text" in listed
    assert main(["models", "digits"]) == 0
    described = capsys.readouterr().out
    assert "ask digits-vae instead" in described
    assert "steps=100" in described
    assert main(["models", "--json"]) == 0
    assert [model["name"] for model in printed_json(capsys)["models"]] == ["digits", "text"]
    assert (
        main(["load", "digits", "--wait"]) == main(["unload", "digits"]) == main(["selftest", "digits"]) == 0
    )


def test_validate_only_draws_nothing(script: Script) -> None:
    assert main(["sample", "digits", "--validate-only", "--no-clip", "--condition", "digit=null"]) == 0
    request = script.last(sample_pb2.SampleRequest)
    assert request.validate_only
    assert request.parameters.HasField("clip")
    assert request.conditions[0].use_null


@pytest.mark.parametrize(
    "arguments",
    [
        ["likelihood", "digits"],
        ["likelihood", "digits", "--data", "no-such-file.npy"],
        ["inpaint", "digits", "--data", "ROWS"],
        ["interpolate", "digits", "--start", "ROWS"],
        ["sample", "digits", "--out", "grid.jpeg"],
        ["sample", "digits", "--out", "no-such-folder/grid.png"],
        ["sample", "digits", "--condition", "digit"],
        ["sample", "digits", "--tls", "no-such-roots.pem"],
    ],
)
def test_what_cannot_be_asked_exits_2(arguments: list[str], rows: str, script: Script) -> None:
    assert main([rows if argument == "ROWS" else argument for argument in arguments]) == 2
    assert not script.count(sample_pb2.StreamSampleRequest)


@pytest.mark.parametrize("arguments", [[], ["paint"], ["sample", "digits", "--steps", "ten"]])
def test_what_does_not_parse_exits_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_without_its_extra_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["models"]) == 2
    assert "pip install 'pxserve[cli]'" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_parameter_of_the_client_is_a_flag(name: str) -> None:
    (commands,) = (action for action in parser()._actions if action.dest == "command")
    assert isinstance(commands.choices, dict)
    flags = {action.dest for action in commands.choices[name]._actions}
    renamed = {"conditions": "condition"}
    assert {renamed.get(p, p) for p in signature(COMMANDS[name].build).parameters} <= flags
