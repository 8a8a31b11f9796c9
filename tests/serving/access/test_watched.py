"""Files that change while the server runs: the new is read, the broken is not, and the log says so once."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from serving.access.watched import Watched


def number(path: Path) -> int:
    return int(path.read_text())


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "n"
    path.write_text("1")
    reads: list[int] = []

    def read() -> int:
        reads.append(number(path))
        return reads[-1]

    watched = Watched("number", [path], read)
    assert (watched.refresh(), watched.value, len(reads)) == (False, 1, 1)
    path.write_text("22")
    assert (watched.refresh(), watched.value, len(reads)) == (True, 22, 2)


def test_a_broken_file_keeps_the_old_value_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "n"
    path.write_text("1")
    watched = Watched("number", [path], lambda: number(path))
    path.write_text("broken")
    with caplog.at_level(logging.ERROR):
        assert [watched.refresh() for _ in range(3)] == [False] * 3
    assert watched.value == 1
    assert len(caplog.records) == 1
    path.unlink()
    watched.refresh()
    assert watched.value == 1
    path.write_text("3")
    assert (watched.refresh(), watched.value) == (True, 3)


def test_a_link_that_is_swapped_counts_as_a_change(tmp_path: Path) -> None:
    for name in ("11", "22"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "n").write_text(name)
    link = tmp_path / "current"
    link.symlink_to(tmp_path / "11")
    watched = Watched("number", [link / "n"], lambda: number(link / "n"))
    (tmp_path / "next").symlink_to(tmp_path / "22")
    (tmp_path / "next").rename(link)
    assert (watched.refresh(), watched.value) == (True, 22)


def test_what_is_broken_at_first_is_the_callers_trouble(tmp_path: Path) -> None:
    path = tmp_path / "n"
    path.write_text("broken")
    with pytest.raises(ValueError, match="broken"):
        Watched("number", [path], lambda: number(path))
