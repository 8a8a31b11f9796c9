"""What the operator can set: flags, and a TOML file whose keys are the flags' names."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any


class ConfigError(Exception):
    """A setting is unknown or wrong; the message names it."""


def _setting(default: object, help_text: str, **rules: object) -> Any:
    return field(default=default, metadata={"help": help_text, **rules})


@dataclass(frozen=True)
class Config:
    """One value per flag; ``--max-rows`` is ``max_rows``. Seconds, bytes and rows as the names say."""

    models: str = _setting("", "folder of model packages: MODELS/NAME/VERSION/model.yaml")
    listen: str = _setting("127.0.0.1:8500", "gRPC address, HOST:PORT; port 0 picks a free one")
    metrics: str = _setting("127.0.0.1:8502", "HTTP address of /metrics, HOST:PORT; empty: none")
    device: str = _setting("cpu", "torch device of the engine: cpu, cuda:0")
    engine: str = _setting(
        "thread", "where the engine runs; process: in one of its own", choices=("thread", "process")
    )
    max_rows: int = _setting(64, "rows in flight per component", minimum=1)
    queue_rows: int = _setting(4096, "rows that may wait before requests are refused", minimum=1)
    threads: int = _setting(0, "threads of a network run; 0: as many as this machine has cores", minimum=0)
    default_deadline_s: float = _setting(300.0, "deadline of requests that bring none", above=0.0)
    max_message_bytes: int = _setting(64 << 20, "largest gRPC message in either direction", minimum=4096)
    max_rows_per_request: int = _setting(1024, "rows (times completions) of one request", minimum=1)
    allow_torchscript: bool = _setting(False, "load TorchScript packages, which are code, from any source")
    require_models: bool = _setting(False, "not ready while any package of the folder is not READY")
    drain_s: float = _setting(30.0, "how long SIGTERM waits for requests in flight", minimum=0.0)
    log_format: str = _setting("text", "format of the log", choices=("json", "text"))
    log_level: str = _setting("info", "least level logged", choices=("debug", "info", "warning", "error"))
    no_reflection: bool = _setting(False, "switch gRPC server reflection off")
    tls_cert: str = _setting("", "PEM file with the server's certificate chain; needs --tls-key")
    tls_key: str = _setting("", "PEM file with the server's private key; needs --tls-cert")
    tls_client_ca: str = _setting("", "PEM file of authorities; clients must present a certificate")

    def __post_init__(self) -> None:
        for setting in fields(self):
            _check(setting, getattr(self, setting.name))
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigError("tls-cert and tls-key: one is of no use without the other")
        if self.tls_client_ca and not self.tls_cert:
            raise ConfigError("tls-client-ca: needs tls-cert and tls-key")
        for name in ("listen", "metrics"):
            _check_address(name, getattr(self, name))


def flag_of(name: str) -> str:
    """The flag (and TOML key) of a field, without dashes in front: ``max_rows`` is ``max-rows``."""
    return name.replace("_", "-")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """One flag per field of Config, and ``--config``; absent flags stay None."""
    parser.add_argument("--config", metavar="FILE", help="TOML file with the same names; flags win")
    for setting in fields(Config):
        if setting.default is False:
            parser.add_argument(
                f"--{flag_of(setting.name)}", action="store_true", default=None, help=setting.metadata["help"]
            )
            continue
        parser.add_argument(
            f"--{flag_of(setting.name)}",
            type=type(setting.default),
            choices=setting.metadata.get("choices"),
            help=f"{setting.metadata['help']} (default: {setting.default!r})",
        )


def from_flags(arguments: argparse.Namespace) -> Config:
    """The file's values, overridden by the flags; raises ConfigError naming what is wrong."""
    values = read_file(Path(arguments.config)) if arguments.config else {}
    given = {s.name: getattr(arguments, s.name) for s in fields(Config)}
    config = Config(**{**values, **{name: value for name, value in given.items() if value is not None}})
    if not config.models:
        raise ConfigError("models: name the folder of model packages (--models DIR)")
    return config


def read_file(path: Path) -> dict[str, Any]:
    """The settings in a TOML file by field name; raises ConfigError for unknown keys and wrong types."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"config {path}: {error}") from error
    known = {flag_of(setting.name): setting for setting in fields(Config)}
    unknown = sorted(set(content) - set(known))
    if unknown:
        raise ConfigError(f"config {path}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
    return {known[key].name: _typed(known[key], value) for key, value in content.items()}


def _typed(setting: Field[Any], value: object) -> object:
    expected = type(setting.default)
    if expected is float and type(value) is int:
        return float(value)
    if type(value) is not expected:
        raise ConfigError(f"{flag_of(setting.name)}: {value!r} is not of type {expected.__name__}")
    return value


def _check(setting: Field[Any], value: Any) -> None:
    rules: Mapping[str, Any] = setting.metadata
    flag = flag_of(setting.name)
    choices: Sequence[str] | None = rules.get("choices")
    if choices and value not in choices:
        raise ConfigError(f"{flag}: {value!r} is none of {', '.join(choices)}")
    if "minimum" in rules and not value >= rules["minimum"]:
        raise ConfigError(f"{flag}: {value!r} is below {rules['minimum']}")
    if "above" in rules and not value > rules["above"]:
        raise ConfigError(f"{flag}: {value!r} must be above {rules['above']}")


def _check_address(name: str, address: str) -> None:
    if name == "metrics" and not address:
        return
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdigit() and int(port) < 65536):
        raise ConfigError(f"{name}: {address!r} is not HOST:PORT")
