"""What the operator can set: flags, and a TOML file whose keys are the flags' names."""

from __future__ import annotations

import argparse
import re
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
    precision: str = _setting(
        "auto",
        "graph to run where a package has several; auto: the first that the device runs",
        choices=("auto", "float32", "float16", "bfloat16", "int8", "int4"),
    )
    engine: str = _setting(
        "thread", "where the engine runs; process: in one of its own", choices=("thread", "process")
    )
    max_rows: int = _setting(64, "rows in flight per component", minimum=1)
    queue_rows: int = _setting(4096, "rows that may wait before requests are refused", minimum=1)
    memory_bytes: int = _setting(
        0, "memory that rows in flight may hold; 0: a quarter of the machine's", minimum=0
    )
    threads: int = _setting(0, "threads of a network run; 0: as many as this machine has cores", minimum=0)
    load_models: str = _setting("*", "models to load at the start, NAME,NAME; *: all; empty: none")
    repository_mode: str = _setting(
        "explicit",
        "what changes the loaded models: nothing, LoadModel and UnloadModel, or the folder every --poll-s",
        choices=("none", "explicit", "poll"),
    )
    poll_s: float = _setting(15.0, "how often --repository-mode poll looks at the folder", above=0.0)
    version_policy: str = _setting("all", "versions of a model that are kept loaded: all, or latest:N")
    default_deadline_s: float = _setting(300.0, "deadline of requests that bring none", above=0.0)
    max_message_bytes: int = _setting(64 << 20, "largest gRPC message in either direction", minimum=4096)
    max_metadata_bytes: int = _setting(8192, "metadata of one call", minimum=1024)
    max_streams_per_connection: int = _setting(8192, "calls that one connection may have open", minimum=1)
    max_open_calls: int = _setting(16384, "calls that may be open in all; more are refused", minimum=1)
    max_connection_age_s: float = _setting(
        0.0,
        "connections are asked to reconnect after this time, so that new replicas get traffic; 0: never",
        minimum=0.0,
    )
    allow_compression: bool = _setting(
        False, "take gzip and deflate messages, whose size gRPC checks only after it has unpacked them"
    )
    max_rows_per_request: int = _setting(1024, "rows (times completions) of one request", minimum=1)
    keepalive_s: float = _setting(60.0, "a silent client is asked whether it is there after this", above=0.0)
    allow_torchscript: bool = _setting(False, "load TorchScript packages, which are code, from any source")
    require_models: bool = _setting(
        False, "not ready while a model failed to load and has no other version that answers"
    )
    hang_s: float = _setting(120.0, "a network run longer than this is hung: the process ends", above=0.0)
    drain_s: float = _setting(30.0, "how long SIGTERM waits for requests in flight", minimum=0.0)
    log_format: str = _setting("text", "format of the log", choices=("json", "text"))
    log_level: str = _setting("info", "least level logged", choices=("debug", "info", "warning", "error"))
    otlp_endpoint: str = _setting(
        "", "OTLP collector that gets the spans of requests, http://HOST:4317; empty: none"
    )
    trace_sample_ratio: float = _setting(
        1.0, "traces recorded of calls that belong to none yet; the others' callers decide",
        minimum=0.0, maximum=1.0,
    )  # fmt: skip
    no_reflection: bool = _setting(False, "switch gRPC server reflection off")
    tokens: str = _setting(
        "", "TOML file of bearer tokens (pxserve-server token makes entries); empty: everyone may ask"
    )
    admin_listen: str = _setting(
        "", "gRPC address for loading, unloading and self-tests, which --listen then refuses; empty: --listen"
    )
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
        if self.otlp_endpoint and not self.otlp_endpoint.startswith(("http://", "https://")):
            raise ConfigError(f"otlp-endpoint: {self.otlp_endpoint!r} is not http://HOST:PORT or https://…")
        for name in ("listen", "metrics", "admin_listen"):
            _check_address(name, getattr(self, name))
        if self.version_policy != "all" and not re.fullmatch(r"latest:[1-9]\d{0,5}", self.version_policy):
            raise ConfigError(f"version-policy: {self.version_policy!r} is neither 'all' nor 'latest:N'")


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
    if "maximum" in rules and not value <= rules["maximum"]:
        raise ConfigError(f"{flag}: {value!r} is above {rules['maximum']}")
    if "above" in rules and not value > rules["above"]:
        raise ConfigError(f"{flag}: {value!r} must be above {rules['above']}")


def _check_address(name: str, address: str) -> None:
    if name != "listen" and not address:
        return
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdigit() and int(port) < 65536):
        raise ConfigError(f"{flag_of(name)}: {address!r} is not HOST:PORT")
