"""``pxserve-server``: serves; ``calibrate`` and ``evaluate`` are its subcommands."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.package.errors import PackageError
from serving.config import Config, ConfigError, add_flags, from_flags
from serving.errors import ServingError

if TYPE_CHECKING:
    import torch

    from serving.api.app import StoppableEngine
    from serving.telemetry.metrics import Metrics


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 wrong use."""
    given = parser().parse_args(arguments)
    try:
        if given.command == "calibrate":
            return _calibrate(given)
        if given.command == "evaluate":
            return _evaluate(given)
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
    commands = top.add_subparsers(dest="command", metavar="calibrate | evaluate")
    calibrate = commands.add_parser("calibrate", help="score held-out rows, for p-values of ScoreAnomaly")
    evaluate = commands.add_parser("evaluate", help="held-out figures by every method that applies")
    for command in (calibrate, evaluate):
        _add_offline(command)
    evaluate.add_argument("--rows", type=int, default=0, help="rows to use; 0: all")
    evaluate.add_argument("--method", action="append", default=[], help="only this one; may be repeated")
    evaluate.add_argument(
        "--set",
        action="append",
        default=[],
        type=_setting,
        metavar="NAME=VALUE",
        help="a parameter, for the methods that have it; surrogate_sigma makes a GAN's surrogate apply",
    )
    evaluate.add_argument("--json", action="store_true", help="print JSON, one object per figure")
    return top


def _add_offline(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL")
    command.add_argument("--models", required=True, metavar="DIR", help="folder of model packages")
    command.add_argument("--version", type=int, help="default: the highest")
    command.add_argument("--data", required=True, metavar="FILE", help=".npy, .npz or text that it never saw")
    command.add_argument("--threads", type=int, default=0)


def _setting(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    with contextlib.suppress(json.JSONDecodeError):
        return name, json.loads(value)
    return name, value


def _serve(config: Config) -> int:
    from export.package.check import check_graphs
    from export.package.read import Package, read_package
    from serving.api.app import serve
    from serving.telemetry import logs
    from serving.telemetry.metrics import Metrics

    def read(folder: Path) -> Package:
        package = read_package(folder)
        check_graphs(package, allow_torchscript=config.allow_torchscript)
        return package

    logs.setup(config.log_format, config.log_level)
    if not Path(config.models).is_dir():
        raise ConfigError(f"models: there is no folder {config.models}")
    metrics = Metrics()
    return asyncio.run(serve(config, _engine(config, metrics), metrics, read))


def _engine(config: Config, metrics: Metrics) -> StoppableEngine:
    from serving.engine.engine import Engine
    from serving.engine.process import ProcessEngine
    from serving.telemetry import logs
    from serving.telemetry.metrics import EngineMetrics

    settings: dict[str, Any] = {
        "device": _device(config.device),
        "max_rows": config.max_rows,
        "queue_rows": config.queue_rows,
        "threads": config.threads,
        "metrics": EngineMetrics(metrics),
    }
    if config.engine == "process":
        return ProcessEngine(setup=partial(logs.setup, config.log_format, config.log_level), **settings)
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


def _calibrate(given: argparse.Namespace) -> int:
    from serving.commands.calibrate import calibrate

    path = calibrate(Path(given.models), given.model, given.version, Path(given.data), given.threads)
    sys.stdout.write(f"{path}\n")
    return 0


def _evaluate(given: argparse.Namespace) -> int:
    from serving.commands.evaluate import Wanted, evaluate

    wanted = Wanted(given.rows, tuple(given.method), dict(given.set))
    figures = evaluate(
        Path(given.models), given.model, given.version, Path(given.data), wanted, given.threads
    )
    for figure in figures:
        if given.json:
            sys.stdout.write(json.dumps(figure.as_dict()) + "\n")
            continue
        value = f"{figure.mean:.4f} ± {figure.standard_error:.4f} {figure.unit}"
        about = f"{figure.kind}, {figure.target}" if figure.target else figure.kind
        sys.stdout.write(
            f"{figure.operation:<12} {figure.method:<22} {value}  ({about}; {figure.rows} rows)\n"
        )
    return 0
