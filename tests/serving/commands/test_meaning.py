"""Every mistake is caught and named; the same networks exported right pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from export.package.read import read_package
from export.zoo.data import digits, text
from serving.commands.dataset import Dataset
from serving.commands.meaning import subject as subjects
from serving.commands.meaning.check import Check
from serving.commands.meaning.run import FAMILIES
from serving.commands.meaning.subject import Subject
from tests.serving.commands.mistakes import MISTAKES, RIGHT, Mistake

ROWS = 16  # held out; each mistake shows in far fewer


def _images(change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], labelled: bool = False) -> Dataset:
    test = digits().test
    labels = {"label": test.labels[:ROWS]} if labelled else {}
    return Dataset(np.ascontiguousarray(change(test.images[:ROWS])), None, labels)


def _blocks(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[rows, 1, 8, 8] to four channels of 4x4, as pixel_unshuffle orders them."""
    split = images.reshape(-1, 4, 2, 4, 2)
    return np.ascontiguousarray(split.transpose(0, 2, 4, 1, 3)).reshape(-1, 4, 4, 4)


def _text() -> Dataset:
    rows = text().test[:ROWS]
    data = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for index, row in enumerate(rows):
        data[index, : len(row)] = np.frombuffer(row, np.uint8)
    return Dataset(data, np.array([len(row) for row in rows], np.int32), {})


DATA: dict[str, Callable[[], Dataset]] = {
    "digits": lambda: _images(lambda x: x),
    "labelled": lambda: _images(lambda x: x, labelled=True),
    "binary": lambda: _images(lambda x: (x > 7).astype(np.uint8)),
    "turned": lambda: _images(lambda x: x.transpose(0, 1, 3, 2)),
    "inverted": lambda: _images(lambda x: (16 - x).astype(np.uint8)),
    "blocks": lambda: _images(_blocks),
    "blocks-hwc": lambda: _images(lambda x: _blocks(x).transpose(0, 2, 3, 1)),
    "text": _text,
}


def verdict(case: Mistake, folder: Path) -> list[Check]:
    package = case.build(folder).export(folder, case.name, license="MIT", say=lambda note: None)
    subject = Subject(read_package(package), DATA[case.data](), threads=1)
    return list(FAMILIES[subject.spec.family](subject))


@pytest.mark.parametrize("case", RIGHT, ids=lambda case: case.name)
def test_what_is_exported_right_passes(case: Mistake, tmp_path: Path) -> None:
    failed = [check for check in verdict(case, tmp_path) if not check.passed]
    assert not failed, "\n".join(check.line for check in failed)


@pytest.mark.parametrize("case", MISTAKES, ids=lambda case: case.name)
def test_a_mistake_is_caught_and_named(case: Mistake, tmp_path: Path) -> None:
    found = verdict(case, tmp_path)
    failed = [check for check in found if not check.passed]
    assert failed, "\n".join(check.line for check in found)
    assert any(case.named in check.mistake for check in failed), "\n".join(check.line for check in failed)


def test_large_networks_are_asked_about_fewer_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = read_package(RIGHT[6].build(tmp_path).export(tmp_path, "a", license="MIT"))
    assert len(Subject(package, DATA["digits"]())) == ROWS
    monkeypatch.setattr(subjects, "ROWS", ((1, 64), (1 << 62, 16)))
    assert len(Subject(package, DATA["digits"]())) == 16
