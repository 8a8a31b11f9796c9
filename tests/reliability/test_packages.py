"""A package that was damaged, cut short, swapped or rewritten is refused, and the others are served."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.demo.server import free_port
from export.package.check import check_graphs
from export.package.errors import PackageError, Reason
from export.package.read import Package, read_package
from pxserve import Client, PxserveError
from tests.reliability.processes import started, stopped
from tests.reliability.record import Figure, Record

pytestmark = pytest.mark.timeout(300)

SHORT_FLIPS, LONG_FLIPS = 2, 60  # per file
SMALL = ("digits-gan", "digits-vae", "text-autoregressive")


@pytest.fixture
def copies(models: Path, tmp_path: Path) -> Path:
    """A repository that may be spoilt."""
    for name in SMALL:
        shutil.copytree(models / name, tmp_path / "models" / name)
    return tmp_path / "models"


def opened(folder: Path) -> Package:
    """A package as the server opens it, short of running it."""
    package = read_package(folder)
    check_graphs(package, allow_torchscript=False)
    return package


def files_of(repository: Path) -> Iterator[Path]:
    for name in SMALL:
        yield from (path for path in sorted((repository / name / "1").rglob("*")) if path.is_file())


def refusal(folder: Path) -> Reason:
    """Why a package is refused; anything but a PackageError, or no refusal at all, fails."""
    with pytest.raises(PackageError) as caught:
        opened(folder)
    assert caught.value.fix
    return caught.value.reason


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def noticed(folder: Path) -> bool:
    """Whether a reader says that a file was changed."""
    try:
        read_package(folder)
    except PackageError as error:
        return error.reason is Reason.WRONG_HASH
    return False


def flipped(repository: Path, each: int) -> tuple[int, int]:
    """Flip bits of every graph, one at a time; how many were tried, and how many nobody noticed."""
    rng = np.random.default_rng(5)
    tried = missed = 0
    for path in [path for path in files_of(repository) if path.name != "model.yaml"]:
        size = 8 * path.stat().st_size
        for bit in [0, size - 1, *rng.integers(0, size, each).tolist()]:
            flip(path, bit)
            missed += not noticed(path.parent)
            flip(path, bit)
            tried += 1
        read_package(path.parent)
    return tried, missed


def test_a_flipped_bit_of_any_graph_is_found(copies: Path) -> None:
    tried, missed = flipped(copies, SHORT_FLIPS)
    assert tried > 20
    assert missed == 0


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_file_that_was_cut_short_is_found(copies: Path, share: float) -> None:
    for path in list(files_of(copies)):
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        if path.name == "model.yaml":
            with pytest.raises(PackageError):
                opened(path.parent)
        else:
            assert refusal(path.parent) is Reason.WRONG_HASH
        path.write_bytes(content)


def test_files_swapped_between_packages_are_found(copies: Path) -> None:
    one, other = copies / "digits-gan" / "1" / "encoder.onnx", copies / "digits-vae" / "1" / "encoder.onnx"
    mine, theirs = one.read_bytes(), other.read_bytes()
    one.write_bytes(theirs)
    other.write_bytes(mine)
    assert refusal(one.parent) is Reason.WRONG_HASH
    assert refusal(other.parent) is Reason.WRONG_HASH


def test_a_swapped_file_with_the_right_hash_is_found_by_what_it_takes_and_gives(copies: Path) -> None:
    folder, other = copies / "digits-vae" / "1", copies / "digits-gan" / "1"
    (folder / "decoder.onnx").write_bytes((other / "discriminator.onnx").read_bytes())
    spec = yaml.safe_load((folder / "model.yaml").read_text())
    spec["files"]["decoder.onnx"] = yaml.safe_load((other / "model.yaml").read_text())["files"][
        "discriminator.onnx"
    ]
    (folder / "model.yaml").write_text(yaml.safe_dump(spec))
    assert refusal(folder) is Reason.GRAPH_MISMATCH


def test_whole_packages_swapped_are_found(copies: Path) -> None:
    (copies / "digits-gan").rename(copies / "away")
    (copies / "digits-vae").rename(copies / "digits-gan")
    assert refusal(copies / "digits-gan" / "1") is Reason.NAME_MISMATCH


Damage = tuple[int, int, str, bool]
PIECES = ("", "  ", "\n", "-", "[", "{", "null", "1e999", "*a", "&a", "!!python/none", "\x00", "é")
damages = st.tuples(
    st.integers(0, 10**6), st.integers(0, 40), st.sampled_from(PIECES) | st.text(max_size=10), st.booleans()
)


def damaged(text: str, damage: Damage) -> str:
    """A text with a piece replaced, removed or doubled."""
    start, length, piece, twice = damage
    start %= len(text)
    return text[:start] + (text[start : start + length] * 2 if twice else piece) + text[start + length :]


def fuzz_yaml(copies: Path, examples: int) -> int:
    """Damage model.yaml that often; how many of them were still read (a changed description is no error)."""
    return sum(_fuzz_one(copies / name / "1" / "model.yaml", examples) for name in SMALL)


def _fuzz_one(path: Path, examples: int) -> int:
    text, read = path.read_text(), 0

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @given(damage=damages)
    def spoil(damage: Damage) -> None:
        nonlocal read
        path.write_text(damaged(text, damage), encoding="utf-8", errors="surrogateescape")
        with suppress(PackageError):
            read_package(path.parent)
            read += 1

    spoil()
    path.write_text(text)
    return read


def test_whatever_model_yaml_says_is_read_or_refused_as_a_package(copies: Path) -> None:
    fuzz_yaml(copies, 40)


def spoil_some(copies: Path) -> set[str]:
    """Two of three packages are broken, each in its way."""
    flip(copies / "digits-gan" / "1" / "generator.onnx", 12345)
    text = (copies / "text-autoregressive" / "1" / "model.yaml").read_text()
    (copies / "text-autoregressive" / "1" / "model.yaml").write_text(text[: len(text) // 2])
    return {"digits-gan", "text-autoregressive"}


def test_a_server_serves_what_is_whole_and_says_what_is_not(copies: Path, tmp_path: Path) -> None:
    broken = spoil_some(copies)
    process, target = started(copies, free_port(), tmp_path / "server.log")
    with stopped(process), Client(target, timeout_s=60.0) as client:
        models = {model.name: model for model in client.list_models()}
        assert {name for name, model in models.items() if model.state == "failed"} == broken
        assert "SHA-256" in models["digits-gan"].state_message
        assert client.sample("digits-vae", 2, seed=1).data.shape == (2, 1, 8, 8)
        with pytest.raises(PxserveError) as caught:
            client.sample("digits-gan")
        assert caught.value.reason == "NOT_READY"
        flip(copies / "digits-gan" / "1" / "generator.onnx", 12345)  # mended, and loaded without a restart
        assert client.load_model("digits-gan", wait=True).state == "ready"
        assert client.sample("digits-gan", 2, seed=1).data.shape == (2, 1, 8, 8)


@pytest.mark.reliability
@pytest.mark.timeout(1800)
def test_many_damages_are_all_found(copies: Path, record: Record) -> None:
    bits, missed = flipped(copies, LONG_FLIPS)
    read = fuzz_yaml(copies, 1500)
    record(
        "Damaged packages",
        [
            Figure("bits flipped, one at a time, in every graph", bits),
            Figure("of them not noticed", missed, "", 0, "at most"),
            Figure("damaged model.yaml", len(SMALL) * 1500),
            Figure("of them read, being valid still", read),
        ],
        f"Packages {', '.join(SMALL)}. Every other one was refused by a PackageError, and by nothing else.",
    )
