from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from export.package.digest import sha256_bytes
from export.package.errors import PackageError, Reason
from export.package.read import list_versions, read_package


def refusal(folder: Path) -> PackageError:
    with pytest.raises(PackageError) as caught:
        read_package(folder)
    return caught.value


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "model.yaml"
    value = yaml.safe_load(path.read_text())
    change(value)
    path.write_text(yaml.safe_dump(value))


def test_a_good_package_reads_with_the_digest_of_its_yaml(package: Path) -> None:
    found = read_package(package)
    assert (found.spec.name, found.version) == ("linear-gan", 1)
    assert found.digest == sha256_bytes((package / "model.yaml").read_bytes())
    assert found.component_path("generator").read_bytes() == found.path("generator.onnx").read_bytes()


def test_a_refusal_says_what_where_and_what_to_do(package: Path) -> None:
    (package / "generator.onnx").unlink()
    error = refusal(package)
    assert (error.reason, error.where) == (Reason.MISSING_FILE, str(package / "generator.onnx"))
    assert str(package) in str(error)
    assert "export the package again" in str(error)


def test_a_missing_folder_and_a_folder_without_yaml_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "m" / "1").reason is Reason.MISSING_FOLDER
    (tmp_path / "m" / "1").mkdir(parents=True)
    assert refusal(tmp_path / "m" / "1").reason is Reason.MISSING_FILE


@pytest.mark.parametrize("name", ["v1", "01", "0", "-1", "1.0", "latest", "٣"])
def test_a_version_folder_that_is_no_integer_is_refused(package: Path, name: str) -> None:
    assert refusal(package.rename(package.with_name(name))).reason is Reason.BAD_VERSION


def test_a_package_under_another_name_is_refused(package: Path) -> None:
    package.parent.rename(package.parent.with_name("other"))
    assert refusal(package.parent.with_name("other") / "1").reason is Reason.NAME_MISMATCH


def test_a_changed_file_is_refused_unless_hashes_are_skipped(package: Path) -> None:
    path = package / "generator.onnx"
    path.write_bytes(path.read_bytes() + b"\x00")
    assert refusal(package).reason is Reason.WRONG_HASH
    assert read_package(package, verify=False).version == 1


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe\x00",
        b"a: [1, 2",
        b"- a\n- b\n",
        b"",
        b"a: !!python/object/apply:os.system [ls]",
        b"format_version: 1\nname: a\nname: b\n",
        b"format_version: 1\na: &x [1]\nb: *x\n",
        b"{" * 20_000,
        b"? {a: 1}\n: 2\n",
    ],
    ids=["bytes", "open", "list", "empty", "python", "twice", "alias", "deep", "key"],
)
def test_unreadable_yaml_is_refused(package: Path, text: bytes) -> None:
    (package / "model.yaml").write_bytes(text)
    assert refusal(package).reason is Reason.UNREADABLE_YAML


def test_a_huge_yaml_is_refused_without_being_parsed(package: Path) -> None:
    with (package / "model.yaml").open("ab") as file:
        file.truncate(17 << 20)
    assert refusal(package).reason is Reason.UNREADABLE_YAML


@pytest.mark.parametrize("version", [2, "1", None, True])
def test_another_format_version_is_refused(package: Path, version: object) -> None:
    edit(package, lambda value: value.update(format_version=version))
    assert refusal(package).reason is Reason.FORMAT_VERSION


def test_an_unknown_key_is_refused_with_the_likely_one(package: Path) -> None:
    edit(package, lambda value: value["data"].update(transfrom=value["data"].pop("transform")))
    error = refusal(package)
    assert error.reason is Reason.UNKNOWN_KEY
    assert "data.transfrom" in error.problem
    assert "'transform'" in error.fix


def test_a_missing_key_is_named(package: Path) -> None:
    edit(package, lambda value: value["data"].pop("shape"))
    error = refusal(package)
    assert error.reason is Reason.MISSING_KEY
    assert "data.shape" in error.problem


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "Linear GAN"),
        ("family", "flow"),
        ("files", {"generator.onnx": "abc"}),
        ("disabled_operations", ["samples"]),
        ("vae", {"latent_shape": [4], "observation": {"kind": "bernoulli"}}),
        ("gan", {"latent_shape": [0]}),
        ("parity", {"max_abs_error": float("nan"), "max_rel_error": 0.0, "inputs": ""}),
    ],
)
def test_a_value_outside_the_schema_is_refused(package: Path, key: str, value: object) -> None:
    edit(package, lambda found: found.update({key: value}))
    assert refusal(package).reason is Reason.BAD_VALUE


@pytest.mark.parametrize(
    "name", ["../generator.onnx", "/etc/hostname", "a/../../x", "a\\b", "./x", "a//b", "", "x/"]
)
def test_a_path_that_leaves_the_package_is_refused(package: Path, name: str) -> None:
    edit(package, lambda value: value["files"].update({name: "0" * 64}))
    assert refusal(package).reason is Reason.PATH_ESCAPES


def test_a_link_out_of_the_package_is_refused(package: Path) -> None:
    path = package / "generator.onnx"
    outside = path.rename(package.parent / "elsewhere.onnx")
    path.symlink_to(outside)
    assert refusal(package).reason is Reason.PATH_ESCAPES


def test_a_linked_folder_out_of_the_package_is_refused(package: Path) -> None:
    outside = package.parent / "outside"
    outside.mkdir()
    (package / "generator.onnx").rename(outside / "generator.onnx")
    (package / "graphs").symlink_to(outside)

    def relist(value: dict[str, Any]) -> None:
        value["files"] = {"graphs/generator.onnx": value["files"]["generator.onnx"]}
        value["components"]["generator"]["file"] = "graphs/generator.onnx"

    edit(package, relist)
    assert refusal(package).reason is Reason.PATH_ESCAPES


def test_a_named_pipe_is_refused_without_waiting_for_it(package: Path) -> None:
    (package / "generator.onnx").unlink()
    os.mkfifo(package / "generator.onnx")
    assert refusal(package).reason is Reason.MISSING_FILE


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "graphs/more.onnx"])
def test_an_unlisted_file_is_refused(package: Path, name: str) -> None:
    (package / name).parent.mkdir(exist_ok=True)
    (package / name).write_bytes(b"")
    error = refusal(package)
    assert (error.reason, error.where) == (Reason.UNLISTED_FILE, str(package / name))


def test_a_component_without_a_listed_file_is_refused(package: Path) -> None:
    edit(package, lambda value: value["files"].clear())
    assert refusal(package).reason is Reason.BAD_VALUE


def test_versions_are_listed_without_what_is_hidden_or_unfinished(package: Path) -> None:
    model = package.parent
    for name in (".writing-2-abc", "v3", "10", "9", "02"):
        (model / name).mkdir()
    (model / "7").write_text("a file")
    (model.parent / ".cache" / "1").mkdir(parents=True)
    (model.parent / "empty").mkdir()
    assert list_versions(model.parent) == {"linear-gan": [1, 9, 10]}
    assert list_versions(model.parent / "nowhere") == {}
