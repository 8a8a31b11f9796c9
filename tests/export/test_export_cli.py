from __future__ import annotations

import io
import shutil
import tomllib
from pathlib import Path

import pytest

from export.cli import main
from export.package.write import write_package
from export.progress import Progress
from tests.export.package.linear import SPEC, linear_graph

EXPORT = Path(__file__).parents[2] / "export"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_package(SPEC, {"generator.onnx": linear_graph().SerializeToString()}, tmp_path, 1)


def test_verify_passes_a_good_package_and_a_repository_of_them(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(package)]) == 0
    assert main(["verify", str(package.parent.parent)]) == 0
    assert f"{package}: ok, gan" in capsys.readouterr().out


def test_verify_refuses_one_damaged_package_and_checks_the_others(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(package, package.with_name("2"))
    (package / "generator.onnx").write_bytes(b"")
    assert main(["verify", str(package.parent.parent)]) == 1
    shown = capsys.readouterr()
    assert f"{package}: REFUSED" in shown.out
    assert f"{package.with_name('2')}: ok" in shown.out
    assert "WRONG_HASH" in shown.err


def test_verify_says_where_there_is_no_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path)]) == 1
    assert "no package" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [[], ["zoo"], ["zoo", "--to", "m", "--train", "n"], ["zoo", "nothing", "--to", "m"], ["other"]],
)
def test_wrong_arguments_end_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_progress_is_plain_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with Progress("zoo", stream) as progress:
        for step in range(101):
            progress("at work", step / 100)
    assert stream.getvalue().splitlines()[0] == "zoo: 0% at work"
    assert len(stream.getvalue().splitlines()) == 11
    assert "\r" not in stream.getvalue()


def test_progress_is_one_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    with Progress("zoo", stream) as progress:
        progress("half", 0.5)
    assert "50% half" in stream.getvalue()
    assert "\n" not in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_the_distribution_holds_every_package_of_the_folder() -> None:
    settings = tomllib.loads((EXPORT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent.relative_to(EXPORT.parent) for path in EXPORT.rglob("__init__.py")}
    assert set(settings["packages"]) == {".".join(folder.parts) for folder in folders}
    zoo = EXPORT / "zoo"
    carried = {path for pattern in settings["package-data"]["export.zoo"] for path in zoo.glob(pattern)}
    assert {
        path for path in zoo.rglob("*.*") if path.is_file() and path.suffix not in (".py", ".pyc")
    } <= carried
