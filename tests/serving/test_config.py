"""Flags and TOML keys have the same names; what is unknown or wrong stops the start and is named."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

import pytest

from serving.config import Config, ConfigError, add_flags, flag_of, from_flags, read_file


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return parser.parse_args(arguments)


def written(folder: Path, text: str) -> Path:
    path = folder / "server.toml"
    path.write_text(text)
    return path


def test_defaults_hold_where_nothing_is_said() -> None:
    config = from_flags(parsed("--models", "m"))
    assert config == Config(models="m")
    assert config.listen == "127.0.0.1:8500"


def test_every_field_has_a_flag_and_a_key(tmp_path: Path) -> None:
    lines = []
    for setting in fields(Config):
        value = setting.default
        if setting.name.startswith("tls"):
            continue
        text = str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
        lines.append(f"{flag_of(setting.name)} = {text}")
    path = written(tmp_path, "\n".join(lines))
    assert from_flags(parsed("--config", str(path), "--models", "m")) == Config(models="m")


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, 'models = "a"\nmax-rows = 8\ndrain-s = 5\nallow-torchscript = true')
    config = from_flags(parsed("--config", str(path), "--max-rows", "16"))
    assert (config.models, config.max_rows, config.drain_s, config.allow_torchscript) == ("a", 16, 5.0, True)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("max_rows = 3", "max_rows"),
        ("speed = 3", "speed"),
        ('max-rows = "3"', "max-rows"),
        ("max-rows = true", "max-rows"),
        ("max-rows = 0", "max-rows"),
        ("default-deadline-s = 0", "default-deadline-s"),
        ('listen = "8500"', "listen"),
        ('metrics = "host:"', "metrics"),
        ('log-format = "xml"', "log-format"),
        ('tls-cert = "a"', "tls-key"),
        ('tls-client-ca = "a"', "tls-client-ca"),
        ("models = ", "server.toml"),
    ],
)
def test_wrong_setting_stops_the_start_and_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=named):
        from_flags(parsed("--config", str(path), "--models", "m"))


def test_missing_file_and_missing_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        read_file(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="--models"):
        from_flags(parsed())


def test_metrics_can_be_switched_off() -> None:
    assert Config(models="m", metrics="").metrics == ""
