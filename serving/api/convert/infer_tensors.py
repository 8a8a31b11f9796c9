"""Tensors of the Open Inference Protocol to arrays and back: raw bytes or typed contents, checked first."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from serving.api.convert.tensors import MAX_AXES
from serving.api.inference import open_inference_pb2 as pb
from serving.errors import invalid
from serving.families.request import Array

BYTES = "BYTES"
MAX_TYPED = 1 << 20  # elements of typed contents: each is a Python object on its way to the array
MAX_STRINGS = 1 << 16  # elements of a tensor of BYTES, for the same reason

# Little-endian on the wire, whatever this machine is.
DTYPES: Mapping[str, np.dtype[np.generic]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_NAMES = {dtype.newbyteorder("="): name for name, dtype in DTYPES.items()}
_FIELDS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
_LENGTH = struct.Struct("<I")


def datatype_of(dtype: str) -> str:
    """The protocol's name of one of NumPy's."""
    return _NAMES[np.dtype(dtype)]


@dataclass(frozen=True)
class Input:
    """One input, not read yet; ``raw`` None: its elements are in ``tensor.contents``."""

    tensor: pb.ModelInferRequest.InferInputTensor
    raw: bytes | None

    @property
    def field(self) -> str:
        """Its path, for errors."""
        return f"inputs[{self.tensor.name}]"

    @property
    def is_bytes(self) -> bool:
        """Whether its elements are byte strings."""
        return self.tensor.datatype == BYTES

    def array(self, dtype: str) -> Array:
        """The elements as ``dtype``; integers of another width are taken where each of them fits."""
        wanted = np.dtype(dtype)
        found = DTYPES.get(self.tensor.datatype)
        if found is None or (found != wanted and not (found.kind in "iu" and wanted.kind in "iu")):
            raise invalid(
                f"{self.field}.datatype", f"must be {datatype_of(dtype)}, not {self.tensor.datatype!r:.40}"
            )
        values = self._from_raw(found) if self.raw is not None else self._from_contents(found)
        return _fitted(values, wanted, self.field).reshape(self._shape())

    def strings(self) -> list[bytes]:
        """The elements of a tensor of BYTES with one axis."""
        if not self.is_bytes:
            raise invalid(f"{self.field}.datatype", f"must be {BYTES}, not {self.tensor.datatype!r:.40}")
        shape = self._shape()
        if len(shape) != 1 or shape[0] > MAX_STRINGS:
            raise invalid(f"{self.field}.shape", f"must be [rows], with at most {MAX_STRINGS} rows")
        if self.raw is not None:
            return _split(self.raw, shape[0], self.field)
        return [bytes(one) for one in self._contents(shape[0]) if isinstance(one, bytes)]

    def _shape(self) -> tuple[int, ...]:
        shape = tuple(self.tensor.shape)
        if len(shape) > MAX_AXES:
            raise invalid(f"{self.field}.shape", f"{len(shape)} axes; at most {MAX_AXES}")
        if any(size < 0 for size in shape):
            raise invalid(f"{self.field}.shape", f"{list(shape)} has a negative size")
        return shape

    def _from_raw(self, dtype: np.dtype[np.generic]) -> Array:
        assert self.raw is not None
        shape = self._shape()
        expected = math.prod(shape) * dtype.itemsize
        if len(self.raw) != expected:
            raise invalid(
                self.field,
                f"{len(self.raw)} bytes, but shape {list(shape)} of {self.tensor.datatype} takes {expected}",
            )
        if dtype.kind == "b" and len(self.raw.translate(None, b"\x00\x01")):
            raise invalid(self.field, "BOOL takes one byte per element, 0 or 1")
        return np.frombuffer(self.raw, dtype)

    def _from_contents(self, dtype: np.dtype[np.generic]) -> Array:
        count = math.prod(self._shape())
        if count > MAX_TYPED:
            raise invalid(
                f"{self.field}.contents", f"more than {MAX_TYPED} elements; send raw_input_contents"
            )
        wide = {"b": np.dtype("?"), "f": np.dtype("f8")}.get(dtype.kind, np.dtype("i8"))
        wide = dtype if dtype == np.dtype("u8") else wide
        return _fitted(np.fromiter(self._contents(count), wide, count), dtype, self.field)

    def _contents(self, count: int) -> Sequence[object]:
        name = _FIELDS.get(self.tensor.datatype)
        if name is None:
            raise invalid(f"{self.field}.datatype", f"{self.tensor.datatype!r:.40} needs raw_input_contents")
        filled = [field.name for field, _ in self.tensor.contents.ListFields()]
        if set(filled) - {name}:
            raise invalid(f"{self.field}.contents", f"{self.tensor.datatype} goes into {name}, not {filled}")
        values: Sequence[object] = getattr(self.tensor.contents, name)
        if len(values) != count:
            raise invalid(
                f"{self.field}.contents",
                f"{len(values)} elements, but shape {list(self.tensor.shape)} takes {count}",
            )
        return values


def inputs_of(message: pb.ModelInferRequest) -> dict[str, Input]:
    """The inputs by name; InvalidArgument where they do not go together."""
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise invalid("raw_input_contents", f"{len(raw)} entries for {len(message.inputs)} inputs")
    found: dict[str, Input] = {}
    for index, tensor in enumerate(message.inputs):
        one = Input(tensor, raw[index] if raw else None)
        if tensor.name in found:
            raise invalid(one.field, "is there twice")
        if raw and tensor.contents.ListFields():
            raise invalid(f"{one.field}.contents", "must be empty where raw_input_contents are given")
        if tensor.parameters:
            raise invalid(f"{one.field}.parameters", f"{min(tensor.parameters)!r:.60}: inputs have none here")
        found[tensor.name] = one
    return found


def add_output(response: pb.ModelInferResponse, name: str, value: Array | Sequence[bytes]) -> None:
    """One output, its elements as raw bytes."""
    if isinstance(value, np.ndarray):
        shape, datatype = value.shape, datatype_of(value.dtype.name)
        content = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
    else:
        shape, datatype = (len(value),), BYTES
        content = b"".join(_LENGTH.pack(len(one)) + one for one in value)
    response.outputs.add(name=name, datatype=datatype, shape=shape)
    response.raw_output_contents.append(content)


def _fitted(values: Array, wanted: np.dtype[np.generic], field: str) -> Array:
    """The same numbers in another dtype; InvalidArgument where an integer would change."""
    if values.dtype == wanted:
        return values.astype(wanted, copy=False)
    if wanted.kind in "iu" and len(values):
        limits = np.iinfo(wanted.name)
        if int(values.min()) < limits.min or int(values.max()) > limits.max:
            raise invalid(field, f"holds values outside {limits.min}..{limits.max}")
    return values.astype(wanted)


def _split(raw: bytes, count: int, field: str) -> list[bytes]:
    """Each element is its length, 4 bytes, and that many bytes."""
    found, place = [], 0
    for _ in range(count):
        if place + _LENGTH.size > len(raw):
            break
        (size,) = _LENGTH.unpack_from(raw, place)
        place += _LENGTH.size
        found.append(raw[place : place + size])
        place += size
    if len(found) != count or place != len(raw):
        raise invalid(field, f"does not hold {count} elements, each after its length in 4 bytes")
    return found
