"""``pxserve-server``: serves; ``calibrate``, ``evaluate`` and ``token`` are its subcommands."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.package.errors import PackageError
from serving.commands import evaluate_command
from serving.config import Config, ConfigError, add_flags, from_flags
from serving.errors import ServingError

if TYPE_CHECKING:
    import torch

    from serving.api.app import StoppableEngine
    from serving.telemetry.metrics import Metrics
    from serving.telemetry.tracing import Tracing


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 wrong use."""
    given = parser().parse_args(arguments)
    try:
        if given.command == "calibrate":
            return _calibrate(given)
        if given.command == "evaluate":
            return evaluate_command.run(given)
        if given.command == "token":
            return _token(given)
        return _serve(from_flags(given))
    except ConfigError as error:
        sys.stderr.write(f"pxserve-server: {error}\n")
        return 2
    except (PackageError, ServingError) as error:
        sys.stderr.write(f"pxserve-server: {error}\n")
        return 1


def parser() -> argparse.ArgumentParser:
    """The command line; without a subcommand it serves."""
    top = argparse.ArgumentParser(prog="pxserve-server", description="Serves p(x) over gRPC.")
    add_flags(top)
    commands = top.add_subparsers(dest="command", metavar="calibrate | evaluate | token")
    calibrate = commands.add_parser("calibrate", help="score held-out rows, for p-values of ScoreAnomaly")
    _add_token(commands.add_parser("token", help="a new bearer token, and its entry for the --tokens file"))
    evaluate = commands.add_parser("evaluate", help=evaluate_command.HELP)
    for command in (calibrate, evaluate):
        _add_offline(command)
    evaluate_command.add(evaluate)
    return top


def _add_offline(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL")
    command.add_argument("--models", required=True, metavar="DIR", help="folder of model packages")
    command.add_argument("--version", type=int, help="default: the highest")
    command.add_argument("--data", required=True, metavar="FILE", help=".npy, .npz or text that it never saw")
    command.add_argument("--threads", type=int, default=0)


def _add_token(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", metavar="NAME", help="shown in logs and metrics")
    command.add_argument(
        "--scope", action="append", choices=("infer", "admin"), help="may be repeated (default: infer)"
    )
    command.add_argument("--quota-device-s", type=float, help="device seconds per --quota-window-s")
    command.add_argument("--quota-window-s", type=float, default=None)
    command.add_argument("--share-weight", type=float, help="device time beside others, relative to 1")
    command.add_argument("--max-priority", type=int, default=0, help="highest x-priority (default: 0)")
    command.add_argument("--expires", metavar="TIME", help="such as 2027-01-31T00:00:00Z")


def _serve(config: Config) -> int:
    from export.package.check import check_graphs
    from export.package.read import Package, read_package
    from export.package.variants import chosen
    from serving.api.app import serve
    from serving.telemetry import logs
    from serving.telemetry.metrics import Metrics

    def read(folder: Path) -> Package:
        # Graphs for other devices are not opened, so they need not be allowed either.
        package = chosen(read_package(folder), config.device.partition(":")[0], config.precision)
        check_graphs(package, allow_torchscript=config.allow_torchscript)
        return package

    logs.setup(config.log_format, config.log_level)
    if not Path(config.models).is_dir():
        raise ConfigError(f"models: there is no folder {config.models}")
    metrics, tracing = Metrics(), _tracing(config)
    engine = _engine(config, metrics)
    gc.freeze()  # of what was imported; else full collections look at it, which stops everything for 0.1 s
    status = asyncio.run(serve(config, engine, metrics, read, tracing))
    if status:
        # The engine is lost: its thread may hang inside a runtime, where Python's own end would abort it.
        logging.shutdown()
        os._exit(status)
    return status


def _tracing(config: Config) -> Tracing:
    from serving.api.convert.provenance import server_version
    from serving.telemetry.tracing import INSTALL, NoTracing, opened

    if not config.otlp_endpoint:
        return NoTracing()
    try:
        return opened(config.otlp_endpoint, config.trace_sample_ratio, server_version())
    except ImportError as error:
        raise ConfigError(f"otlp-endpoint: OpenTelemetry is not installed ({error}): {INSTALL}") from error


def _engine(config: Config, metrics: Metrics) -> StoppableEngine:
    from serving.engine.engine import Engine
    from serving.engine.process import ProcessEngine
    from serving.telemetry import logs
    from serving.telemetry.engine_metrics import EngineMetrics

    settings: dict[str, Any] = {
        "device": _device(config.device),
        "max_rows": config.max_rows,
        "queue_rows": config.queue_rows,
        "memory_bytes": config.memory_bytes,
        "threads": config.threads,
        "hang_s": config.hang_s,
        "metrics": EngineMetrics(metrics),
    }
    if config.engine == "process":
        apart = ProcessEngine(setup=partial(logs.setup, config.log_format, config.log_level), **settings)
        metrics.watch_engine(lambda: apart.pid)
        return apart
    return Engine(**settings)


def _device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device: {name!r} is no torch device") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device: {name!r}, but torch sees no GPU")
    return device


def _token(given: argparse.Namespace) -> int:
    from serving.access.new_token import Wanted, new_token
    from serving.access.tokens import TokensError, parse_tokens

    wanted = Wanted(
        given.name,
        given.scope or ["infer"],
        given.quota_device_s,
        given.quota_window_s,
        given.share_weight,
        given.max_priority,
        given.expires,
    )
    secret, entry = new_token(wanted)
    try:
        parse_tokens(entry, "token")
    except TokensError as error:
        raise ConfigError(str(error)) from error
    sys.stdout.write(f"{entry}\n")
    sys.stdout.flush()
    # on stderr, so that `>> tokens.toml` does not write the secret down
    sys.stderr.write(f"The secret of {given.name}, shown this once and kept nowhere:\n{secret}\n")
    return 0


def _calibrate(given: argparse.Namespace) -> int:
    from serving.commands.calibrate import calibrate

    path = calibrate(Path(given.models), given.model, given.version, Path(given.data), given.threads)
    sys.stdout.write(f"{path}\n")
    return 0
