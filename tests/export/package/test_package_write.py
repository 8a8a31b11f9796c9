from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.package import write
from export.package.errors import PackageError, Reason
from export.package.parse import parse_spec
from export.package.read import list_versions, read_package
from export.package.text import to_yaml
from export.package.write import write_package

FILES = {"generator.onnx": b"a graph"}

# Writes 100 MB in pieces, so that the test can stop it in the middle.
SLOW_WRITER = """
import json, sys
from pathlib import Path
from export.package import digest
from export.package.write import write_package

spec, repository, big = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
digest.PIECE_BYTES = 1 << 10
write_package(spec, {"generator.onnx": b"a graph", "weights.bin": big}, repository, 1)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_what_is_read(spec: dict[str, Any], repository: Path, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(3 << 20))
    files: dict[str, Path | bytes] = {**FILES, "graphs/weights.bin": tmp_path / "weights"}
    package = read_package(write_package(spec, files, repository, 3))
    wanted = parse_spec("test", {**spec, "files": package.spec.files})
    assert package.spec == wanted
    assert set(package.spec.files) == set(files)
    assert package.folder == repository / "linear-gan" / "3"


def test_the_same_package_has_the_same_digest_everywhere(spec: dict[str, Any], tmp_path: Path) -> None:
    folders = [write_package(spec, FILES, tmp_path / name, 1) for name in ("a", "b")]
    assert read_package(folders[0]).digest == read_package(folders[1]).digest


def test_a_parsed_spec_is_written_like_the_mapping_it_came_from(spec: dict[str, Any], tmp_path: Path) -> None:
    first = read_package(write_package(spec, FILES, tmp_path / "a", 1))
    again = read_package(write_package(first.spec, FILES, tmp_path / "b", 2))
    assert again.digest == first.digest


def test_yaml_is_readable_and_keeps_long_lists_compact(spec: dict[str, Any], repository: Path) -> None:
    spec["description"] = "Two lines:\n'quoted' — ü"
    text = (write_package(spec, FILES, repository, 1) / "model.yaml").read_text()
    assert "- {name: latent, dtype: float32, shape: [rows, 4]}" in text
    assert "axes: [channel, height, width]" in text
    assert max(map(len, text.splitlines())) <= 110
    assert yaml.safe_load(text)["description"] == spec["description"]


def test_a_published_version_is_not_overwritten(package: Path, spec: dict[str, Any]) -> None:
    before = read_package(package).digest
    with pytest.raises(PackageError) as caught:
        write_package(spec, {"generator.onnx": b"other"}, package.parent.parent, 1)
    assert caught.value.reason is Reason.VERSION_EXISTS
    assert read_package(package).digest == before


def test_a_version_is_replaced_where_asked(package: Path, spec: dict[str, Any]) -> None:
    write_package(spec, {"generator.onnx": b"other"}, package.parent.parent, 1, replace=True)
    assert read_package(package).path("generator.onnx").read_bytes() == b"other"
    assert names(package.parent) == ["1"]


@pytest.mark.parametrize("name", ["../x", "/x", "model.yaml", "a/../b"])
def test_a_file_name_that_leaves_the_package_is_not_written(
    spec: dict[str, Any], repository: Path, name: str
) -> None:
    with pytest.raises(PackageError):
        write_package(spec, {**FILES, name: b""}, repository, 1)
    assert not repository.exists()


def test_a_wrong_spec_is_refused_before_anything_is_written(spec: dict[str, Any], repository: Path) -> None:
    del spec["gan"]
    with pytest.raises(PackageError):
        write_package(spec, FILES, repository, 1)
    with pytest.raises(PackageError) as caught:
        write_package({}, FILES, repository, 1)
    assert caught.value.reason is Reason.MISSING_KEY
    assert not repository.exists()


def test_a_version_that_is_no_positive_integer_is_not_written(spec: dict[str, Any], repository: Path) -> None:
    with pytest.raises(PackageError) as caught:
        write_package(spec, FILES, repository, 0)
    assert caught.value.reason is Reason.BAD_VERSION


def test_a_full_disk_leaves_nothing(
    spec: dict[str, Any], repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(write, "copy_hashed", full)
        with pytest.raises(PackageError) as caught:
            write_package(spec, FILES, repository, 1)
    assert caught.value.reason is Reason.WRITE_FAILED
    assert names(repository / "linear-gan") == []
    write_package(spec, FILES, repository, 1)


def test_a_missing_source_file_leaves_nothing(spec: dict[str, Any], repository: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError) as caught:
        write_package(spec, {"generator.onnx": tmp_path / "absent"}, repository, 1)
    assert caught.value.reason is Reason.WRITE_FAILED
    assert list_versions(repository) == {}


def test_a_killed_writer_publishes_nothing_and_the_next_one_cleans_up(
    spec: dict[str, Any], repository: Path, tmp_path: Path
) -> None:
    import json

    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(100 << 20)
    writer = subprocess.Popen(
        [sys.executable, "-c", SLOW_WRITER, json.dumps(spec), str(repository), str(big)]
    )
    model = repository / "linear-gan"
    while not list(model.glob(".writing-*/weights.bin")):
        assert writer.poll() is None, "the writer ended before it could be stopped"
        time.sleep(0.005)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert list_versions(repository) == {}
    assert len(list(model.glob(".writing-*"))) == 1
    write_package(spec, FILES, repository, 1)
    assert names(model) == ["1"]


def test_a_writer_at_work_is_not_disturbed_by_another(spec: dict[str, Any], repository: Path) -> None:
    with write._temporary(repository / "linear-gan", 1) as folder:
        write_package(spec, FILES, repository, 2)
        assert folder.exists()
    assert not folder.exists()


FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], exclude_characters="﻿￾￿"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scale=FINITE.filter(lambda x: x != 0.0), shift=FINITE, error=FINITE, words=st.dictionaries(TEXT, TEXT))
def test_yaml_keeps_every_bit_of_floats_and_every_character(
    spec: dict[str, Any], scale: float, shift: float, error: float, words: dict[str, str]
) -> None:
    data = {**spec["data"], "transform": {"kind": "affine", "scale": [scale], "shift": [shift]}}
    parity = {"max_abs_error": error, "max_rel_error": 0.0, "inputs": " ".join(words)}
    files = {"generator.onnx": "0" * 64}
    wanted = parse_spec("t", {**spec, "data": data, "parity": parity, "provenance": words, "files": files})
    assert parse_spec("t", yaml.safe_load(to_yaml(wanted))) == wanted


def test_a_version_that_is_replaced_is_never_missing(
    package: Path, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[bool] = []
    rename = Path.rename

    def watched(self: Path, target: Path) -> Path:
        done = rename(self, target)
        there.append((package / "model.yaml").exists())  # what a kill right now would leave
        return done

    monkeypatch.setattr(Path, "rename", watched)
    write_package(spec, {"generator.onnx": b"other"}, package.parent.parent, 1, replace=True)
    assert all(there)
    assert names(package.parent) == ["1"]
    assert (package / "generator.onnx").read_bytes() == b"other"


def test_a_version_is_replaced_where_folders_cannot_be_exchanged(
    package: Path, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "exchange", lambda one, other: False)
    write_package(spec, {"generator.onnx": b"other"}, package.parent.parent, 1, replace=True)
    assert names(package.parent) == ["1"]
    assert read_package(package).path("generator.onnx").read_bytes() == b"other"
