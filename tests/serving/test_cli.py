"""The command line: serving without a subcommand, wrong use, and the process as a whole."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.cli import main, parser


def test_no_subcommand_serves_and_subcommands_have_their_own_arguments() -> None:
    given = parser().parse_args(["--models", "m", "--max-rows", "3"])
    assert (given.command, given.models, given.max_rows) == (None, "m", 3)
    given = parser().parse_args(["calibrate", "digits", "--models", "m", "--data", "d.npy"])
    assert (given.command, given.model, given.models, given.data) == ("calibrate", "digits", "m", "d.npy")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--models", "/no/such/folder"], "/no/such/folder"),
        (["--models", ".", "--device", "abacus"], "abacus"),
        ([], "--models"),
    ],
)
def test_wrong_use_is_named_with_status_two(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert named in capsys.readouterr().err


def test_missing_model_of_a_subcommand_is_status_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "nobody", "--models", str(tmp_path), "--data", "d.npy"]) == 1
    assert "nobody" in capsys.readouterr().err


def test_process_says_serving_drains_on_sigterm_and_ends_with_status_zero(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serving", "--models", str(tmp_path), "--log-format", "json"]
    command += ["--listen", "127.0.0.1:0", "--metrics", ""]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert '"message": "SERVING"' in line
        assert '"address": "127.0.0.1:' in line
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(10.0) == 0
        assert time.monotonic() - begun < 8.0
    assert '"message": "draining"' in rest
    assert '"message": "stopped"' in rest
