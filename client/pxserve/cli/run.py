"""Runs one subcommand against one server."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from rich.console import Console

from pxserve.channel import ConnectionSettingError
from pxserve.cli import bench, files, health, show
from pxserve.cli.connect import connection
from pxserve.cli.draw import draw
from pxserve.cli.files import UsageError
from pxserve.cli.flags import COMMANDS, arguments_of, parser
from pxserve.cli.save import check, save
from pxserve.client import Client
from pxserve.errors import PxserveError
from pxserve.models import Model, ModelState, SelfTest, Verdict


def run(arguments: Sequence[str] | None = None) -> int:
    """Parse, ask, print; returns the exit code."""
    given = parser().parse_args(arguments)
    errors = Console(stderr=True, highlight=False)
    try:
        if given.command == "bench":
            return bench.run(given)
        if given.command == "health":
            return health.run(given)
        with Client(given.target, **connection(given)) as client:
            return _answer(client, given)
    except (UsageError, ConnectionSettingError, OSError) as error:
        errors.print(f"pxserve {given.command}: {error}", markup=False, soft_wrap=True)
        return 2
    except PxserveError as error:
        if given.json:
            _print_json(show.error_json(error))
        else:
            errors.print(str(error), markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130


def _answer(client: Client, given: argparse.Namespace) -> int:
    if given.command == "models":
        return _models(client, given)
    command = COMMANDS[given.command]
    if getattr(given, "out", None):
        check(given.out)
    describe = partial(client.get_model, given.model, version=given.version)
    inputs = files.collect(given, describe)
    _require(given, inputs)
    keywords = {**arguments_of(command, given), **inputs}
    if given.command == "sample" and not given.validate_only:
        result: Any = draw(client, given.model, keywords, quiet=given.json)
    else:
        method = "sample" if given.command == "sample" else command.method
        with Console(stderr=True, quiet=given.json).status(f"{given.command} {given.model}"):
            result = getattr(client, method)(given.model, **keywords)
    if getattr(given, "out", None):
        save(given.out, result, inputs, describe)
    _print(given, result)
    return int(_failed(result))


def _models(client: Client, given: argparse.Namespace) -> int:
    if given.model:
        found = client.get_model(given.model, version=given.version)
        _print(given, found)
        return 0
    listed = client.list_models()
    ready = [m if m.state is not ModelState.READY else _described(client, m) for m in listed]
    if given.json:
        _print_json({"models": show.as_json(ready)})
    else:
        show.models(show.console(), ready)
    return 0


def _described(client: Client, model: Model) -> Model:
    return client.get_model(model.name, version=model.version)


def _require(given: argparse.Namespace, inputs: dict[str, Any]) -> None:
    """Refuse a call without its rows, in the words of the flags."""
    needed = {
        "inpaint": ("data", "observed"),
        "interpolate": ("start", "end"),
        "decode": ("latents",),
        **dict.fromkeys(("likelihood", "anomaly", "encode", "reconstruct"), ("data",)),
    }.get(given.command, ())
    flags = {"data": "--data FILE or --text TEXT", "observed": "--observed FILE or --hide SIDE"}
    missing = [flags.get(name, f"--{name} FILE") for name in needed if name not in inputs]
    if missing:
        raise UsageError(f"needs {' and '.join(missing)}")


def _print(given: argparse.Namespace, result: Any) -> None:
    console = show.console()
    if given.json:
        _print_json(show.as_json(result))
    elif isinstance(result, Model):
        (show.model if given.command == "models" else show.line)(console, result)
    elif isinstance(result, SelfTest):
        show.checks(console, result)
    else:
        if getattr(given, "validate_only", None):
            console.print("The request is valid. Nothing was computed; the cost below is predicted.")
        show.answer(console, result)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def _failed(result: Any) -> bool:
    """Whether a check that holds for any weights does not hold here."""
    found = result.checks if isinstance(result, SelfTest) else ()
    return any(c.verdict is Verdict.FAIL and c.holds_for_any_weights for c in found)
