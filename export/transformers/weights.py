"""Weights of a folder, in safetensors: mapped, read one at a time, each exactly once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from export.graph.decoder import Linear, Stored
from export.transformers.refusal import bad_source, bad_weights

INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
CONVERT = (
    "Convert it where you trust it: AutoModelForCausalLM.from_pretrained(DIR)"
    ".save_pretrained(NEW_DIR, safe_serialization=True)"
)
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


class Weights:
    """Tensors by name; ``prefix`` may stand before a name or not, as savers differ."""

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self.folder = folder
        self._prefix = prefix
        self._files = {path: _opened(path) for path in _files(folder)}
        self._places = {name: file for file in self._files.values() for name in file.keys()}  # noqa: SIM118
        self._taken: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return self._found(name) is not None

    @property
    def float_bytes(self) -> int:
        """Bytes of all weights in float32."""
        slices = (file.get_slice(name) for name, file in self._places.items())
        return sum(4 * torch.Size(part.get_shape()).numel() for part in slices)

    def take(
        self, name: str, *shape: int, change: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> Stored:
        """The tensor ``name`` of this shape, after ``change``; BAD_WEIGHTS where it is not so."""
        place = self._found(name)
        if place is None:
            raise bad_weights(self.folder, f"there is no weight {name!r}", "Save the whole model again")
        found = tuple(self._places[place].get_slice(place).get_shape())
        if found != shape:
            problem = f"{place} is {list(found)}, but config.json means {list(shape)}"
            raise bad_weights(self.folder, problem, "Save weights and config.json of one model")
        self._taken.add(place)
        changed = shape if change is None else tuple(change(torch.empty(shape, device="meta")).shape)
        return Stored(changed, lambda: self._read(place) if change is None else change(self._read(place)))

    def linear(self, name: str, inputs: int, outputs: int, *, bias: bool) -> Linear:
        """torch's nn.Linear, stored [out, in]."""
        weight = self.take(f"{name}.weight", outputs, inputs, change=lambda value: value.T)
        return Linear(weight, self.take(f"{name}.bias", outputs) if bias else None)

    def convolution(self, name: str, inputs: int, outputs: int) -> Linear:
        """transformers' Conv1D, stored [in, out]."""
        return Linear(self.take(f"{name}.weight", inputs, outputs), self.take(f"{name}.bias", outputs))

    def check_all_taken(self, ignored: str) -> None:
        """BAD_WEIGHTS where weights are left that nothing reads, other than buffers (pattern ``ignored``)."""
        left = [n for n in self._places if n not in self._taken and not re.search(ignored, n)]
        if left:
            shown = ", ".join(sorted(left)[:4]) + (" …" if len(left) > 4 else "")
            problem = f"{len(left)} weights have no place in this architecture: {shown}"
            raise bad_weights(self.folder, problem, "Merge adapters, and save the model again")

    def _found(self, name: str) -> str | None:
        bare = name.removeprefix(self._prefix)
        return next((known for known in (name, bare) if known in self._places), None)

    def _read(self, name: str) -> torch.Tensor:
        value: torch.Tensor = self._places[name].get_tensor(name)
        if not torch.isfinite(value).all():
            raise bad_weights(self.folder, f"{name} holds NaN or infinity", "Save a model that trained well")
        return value


def joined(parts: list[Linear]) -> Linear:
    """One product for several of the same input, outputs side by side."""
    weights = [part.weight for part in parts]
    biases = [part.bias for part in parts if part.bias is not None]
    outputs = sum(weight.shape[1] for weight in weights)
    bias = Stored((outputs,), lambda: torch.cat([_value(b) for b in biases])) if biases else None
    # Read as stored and joined there: the transposed views are one contiguous matrix again.
    return Linear(
        Stored((weights[0].shape[0], outputs), lambda: torch.cat([_value(w).T for w in weights]).T), bias
    )


def _value(weight: object) -> torch.Tensor:
    assert isinstance(weight, Stored)
    return weight.read()


def _files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, or a refusal that says why there are none."""
    if (folder / INDEX).is_file():
        return _shards(folder)
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    pickled = [path.name for pattern in PICKLED for path in sorted(folder.glob(pattern))]
    if pickled:
        problem = f"weights are pickled ({', '.join(pickled[:3])}), which runs code when it is read"
        raise bad_source(folder, problem, CONVERT)
    raise bad_source(folder, f"there is neither {WHOLE} nor {INDEX}", "Point to a folder of save_pretrained")


def _shards(folder: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads((folder / INDEX).read_text("utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise bad_source(folder / INDEX, f"no index of weights ({error})", "Save the model again") from error
    for name in names:
        if Path(str(name)).name != name or not (folder / str(name)).is_file():
            raise bad_source(folder / str(name), f"{INDEX} names this file, but it is not here", "Restore it")
    return [folder / str(name) for name in names]


def _opened(path: Path) -> Any:
    try:
        file: Any = safe_open(path, framework="pt")
        for name in file.keys():  # noqa: SIM118 - it is no mapping
            kind = file.get_slice(name).get_dtype()
            if kind not in FLOATS and kind not in ("I64", "I32", "BOOL", "U8"):
                raise bad_weights(path, f"{name} is {kind}; float64, 32, 16 and bfloat16 are read", CONVERT)
    except (SafetensorError, OSError) as error:
        raise bad_weights(path, f"not a whole safetensors file ({error})", "Copy or save it again") from error
    return file
