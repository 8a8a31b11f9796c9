"""What a child process of the tests runs: an engine whose packages are toys."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from serving.engine.engine import Engine
from serving.engine.messages import ModelKey
from serving.engine.model import LoadedModel
from tests.serving.engine.toy import KEY, Fault, loaded, toy

DELAY_S = 0.002
UNPICKLABLE, BROKEN = 91, 92  # seeds of requests whose answers misbehave


class Odd(Exception):
    """Cannot be unpickled: its constructor wants more than its text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def load_toy(
    engine: Engine, key: ModelKey, package: Any, calibration: Any = None, warming: Any = None
) -> LoadedModel:
    """Instead of Engine.load: the package is the path of nothing."""
    warming()
    if package == Path("broken"):
        raise Odd(3, "no such toy")
    made = toy(key=key, engine=engine, before=Fault(trigger=77.0, delay_s=DELAY_S))
    program = made.family.program

    def odd_program(request: Any) -> Any:
        if request.seed == BROKEN:
            raise LookupError("broken before it began")
        result = yield from program(request)
        return (lambda: result) if request.seed == UNPICKLABLE else result

    made.family.program = odd_program  # type: ignore[method-assign]
    return loaded(key, made.family)


def setup() -> None:
    """In the child, before its engine is made."""
    Engine.load = load_toy  # type: ignore[assignment,method-assign]


def wait_for(condition: Any, timeout_s: float = 10.0) -> bool:
    """Poll."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.01)
    return False


__all__ = ["BROKEN", "DELAY_S", "KEY", "UNPICKLABLE", "setup", "wait_for"]
