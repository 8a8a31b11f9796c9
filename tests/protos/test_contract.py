from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from protos.generate import (
    DESCRIPTOR,
    INFERENCE_STUBS,
    PROTOS,
    STUBS,
    buf,
    generate,
    generate_inference,
)


def test_stubs_are_what_the_protos_generate(tmp_path: Path) -> None:
    generate(tmp_path)
    generate_inference(tmp_path)
    generated = [*(tmp_path / "pxserve/v1").iterdir(), *(tmp_path / "inference").iterdir()]
    kept = [*(STUBS / "pxserve/v1").glob("*_pb2*.py*"), *(INFERENCE_STUBS / "inference").glob("*_pb2*.py*")]
    fresh = {path.name: path.read_bytes() for path in generated}
    committed = {path.name: path.read_bytes() for path in kept}
    assert fresh.keys() == committed.keys(), "run `make protos`"
    stale = [name for name in fresh if fresh[name] != committed[name]]
    assert not stale, "run `make protos`"


def test_protos_are_lint_clean_and_every_element_has_a_comment() -> None:
    linted = buf("lint", PROTOS)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_no_change_breaks_callers_of_the_committed_contract() -> None:
    broken = buf("breaking", PROTOS, "--against", DESCRIPTOR)
    assert broken.returncode == 0, broken.stdout + broken.stderr


def test_the_descriptor_holds_everything_that_the_protos_promise(tmp_path: Path) -> None:
    built = tmp_path / "built.binpb"
    assert buf("build", PROTOS, "--exclude-source-info", "-o", built).returncode == 0
    committed = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTOR.read_bytes())
    current = descriptor_pb2.FileDescriptorSet.FromString(built.read_bytes())
    assert committed == current, "run `python protos/generate.py --land`"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("optional int32 steps = 2;", "optional int32 steps = 22;"),
        ("optional float eta = 5;", "optional double eta = 5;"),
        ("SAMPLE_KIND_MODIFIED = 3;", "SAMPLE_KIND_TEMPERED = 3;"),
        ("repeated string stop = 12;", ""),
    ],
)
def test_breaking_changes_are_found(tmp_path: Path, before: str, after: str) -> None:
    changed = shutil.copytree(PROTOS, tmp_path / "protos")
    path = changed / "pxserve/v1/sample.proto"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    assert buf("breaking", changed, "--against", DESCRIPTOR).returncode != 0
