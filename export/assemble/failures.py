"""What went wrong inside a user's network, in words: which line, and what is likely missing."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from export.adapt.steps import apply_all
from export.adapt.wiring import Wiring
from export.package.errors import PackageError, Reason

_TORCH, _OURS = Path(torch.__file__).parent, Path(__file__).parents[1]

# What an error says -> what to write. The first that matches is shown.
_RUN_HINTS = (
    (r"missing \d+ required positional argument", "Add the condition that it takes: "
    r"conditions=(ClassCondition("
     "NAME, CLASSES),), or rename: Network(module, inputs={{OURS: PARAMETER}})"),
    (r"missing value for argument|multiple values for argument",
     "Say what each of its parameters is called: inputs: {{{names}}}"),
    (r"unexpected keyword argument|positional arguments? but", "Say what its parameters are called: "
     "Network(module, inputs={{{first!r}: PARAMETER, ...}})"),
    (r"scalar type(s)?:? .*Long|'indices' to have|must be integer|used as indices|expected .*Long",
     "If an embedding reads t, add time_dtype='int64'; ids and classes are int64 already"),
    (r"shapes cannot be multiplied|size mismatch|to have \d+ channels|input channels|must match the size|"
     r"Expected \dD|dimension", "If it holds images in another layout, say Network(module, layout='flat') or "
     "layout='channels_last'; else correct data or latent_shape"),
)  # fmt: skip
_ASK = "Correct the specification, or the network"


def refused_run(
    name: str, network: nn.Module, wiring: Wiring, inputs: Mapping[str, Tensor], error: Exception
) -> PackageError:
    """The network did not run on example inputs."""
    values = zip(wiring.inputs, inputs.values(), strict=True)
    given = {wire.source: apply_all(wire.steps, value) for wire, value in values}
    shown = ", ".join(_argument(source, value) for source, value in given.items())
    first = wiring.inputs[0].name
    names = ", ".join(f"{wire.name}: PARAMETER" for wire in wiring.inputs)
    hints = (
        hint.format(first=first, names=names)
        for pattern, hint in _RUN_HINTS
        if re.search(pattern, str(error))
    )
    problem = f"calling {signature(network)} with ({shown}) failed{place(error)}: {first_line(error)}"
    return PackageError(Reason.WRONG_OUTPUT, name, problem, next(hints, _ASK))


def refused_export(name: str, kind: str, error: Exception) -> PackageError:
    """The network runs, but cannot be written as a graph."""
    text = "\n".join(str(cause) for cause in _causes(error))
    scripted = "Or keep the control flow with torch.jit.script, and export it as TorchScript"
    if re.search(r"data-dependent|GuardOnDataDependent|Could not guard|\.item\(\)|symbolic.*bool", text):
        problem = f"its control flow depends on the values of tensors{place(error)}"
        fix = f"Replace the branch by torch.where, or the loop by one of a fixed length. {scripted}"
    elif re.search(r"[Cc]onstraints violated|specialized|specialised|Dim\(", text):
        problem = f"it works for one number of rows only{place(error)}"
        fix = (
            "Replace sizes of the batch that are written as numbers by x.shape[0] (or -1 in reshape and view)"
        )
    elif operator := re.search(r"op='(aten\.[\w.]+)'", text):
        problem = f"it cannot be written as {kind}{place(error)}: there is no such operation as {operator[1]}"
        fix = f"Replace it in the network by operations that {kind} has. {scripted}"
    else:
        problem = f"it cannot be written as {kind}{place(error)}: {first_line(error)}"
        fix = f"Replace that operation by one that {kind} has. {scripted}"
    return PackageError(Reason.UNSUPPORTED_NETWORK, name, problem, fix)


def _argument(source: object, value: Tensor) -> str:
    named = f"{source}=" if isinstance(source, str) else ""
    return f"{named}{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def signature(network: nn.Module) -> str:
    """ "UNet.forward(x, t, y=None)"."""
    kind = getattr(network, "original_name", type(network).__name__)
    try:
        parameters = inspect.signature(network.forward).parameters.values()
    except (TypeError, ValueError):
        return f"{kind}.forward"
    plain = ", ".join(str(p.replace(annotation=inspect.Parameter.empty)) for p in parameters)
    return f"{kind}.forward({plain})"


def place(error: BaseException) -> str:
    """The last line of the user's own code that the error passed through: " at net.py:12: y = f(x)"."""
    found = ""
    for cause in _causes(error):
        for frame in traceback.extract_tb(cause.__traceback__):
            path = Path(frame.filename)
            if path.exists() and not path.is_relative_to(_TORCH) and not path.is_relative_to(_OURS):
                found = f" at {path.name}:{frame.lineno}" + (f": {frame.line}" if frame.line else "")
    return found


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it was raised from, each once."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        yield error
        seen.append(error)
        error = error.__cause__ or error.__context__


def first_line(error: BaseException) -> str:
    """The first line of its message, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
