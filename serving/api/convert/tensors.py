"""Tensor messages to arrays and back: raw little-endian bytes, checked before anything is allocated."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pxserve.v1 import data_pb2
from serving.errors import invalid
from serving.families.request import Array

MAX_AXES = 8  # before their product is taken: it may have as many digits as the message

# Little-endian on the wire, whatever this machine is.
_DTYPES: dict[data_pb2.DataType.ValueType, np.dtype[np.generic]] = {
    data_pb2.DATA_TYPE_BOOL: np.dtype("?"),
    data_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
    data_pb2.DATA_TYPE_INT32: np.dtype("<i4"),
    data_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
    data_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    data_pb2.DATA_TYPE_FLOAT64: np.dtype("<f8"),
}
_NAMES = {dtype.name: number for number, dtype in _DTYPES.items()}


def array_of(tensor: data_pb2.Tensor, field: str, dtype: str) -> Array:
    """A read-only view of the bytes; InvalidArgument where dtype, shape and byte count do not agree.

    ``dtype`` is NumPy's name of the one that is wanted; nothing is cast.
    """
    wanted = np.dtype(dtype)
    found = _DTYPES.get(tensor.dtype)
    if found is None or found != wanted:
        name = found.name if found is not None else f"{tensor.dtype}, which is no DataType"
        raise invalid(f"{field}.dtype", f"must be {wanted.name}, not {name}")
    if len(tensor.shape) > MAX_AXES:
        raise invalid(f"{field}.shape", f"{len(tensor.shape)} axes; at most {MAX_AXES}")
    shape = tuple(tensor.shape)
    if any(size < 0 for size in shape):
        raise invalid(f"{field}.shape", f"{list(shape)} has a negative size")
    expected_bytes = math.prod(shape) * wanted.itemsize
    if expected_bytes != len(tensor.data):
        raise invalid(
            f"{field}.data",
            f"{len(tensor.data)} bytes, but shape {list(shape)} of {wanted.name} takes {expected_bytes}",
        )
    if found.kind == "b" and len(tensor.data.translate(None, b"\x00\x01")):
        raise invalid(f"{field}.data", "bool takes one byte per element, 0 or 1")
    return np.frombuffer(tensor.data, dtype=found).reshape(shape).astype(wanted, copy=False)


def floats_of(tensor: data_pb2.Tensor, field: str) -> NDArray[np.float32]:
    """A float32 tensor of finite numbers."""
    values = array_of(tensor, field, "float32").astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise invalid(f"{field}.data", "holds NaN or infinity")
    return values


def tensor_of(array: Array) -> data_pb2.Tensor:
    """The message of an array of one of the six dtypes, in row-major order."""
    dtype = array.dtype.newbyteorder("<")
    return data_pb2.Tensor(
        dtype=data_type_of(array.dtype.name), shape=array.shape, data=array.astype(dtype).tobytes()
    )


def data_type_of(dtype: str) -> data_pb2.DataType.ValueType:
    """The enum value of a dtype's name; DATA_TYPE_UNSPECIFIED where the wire has none (float16)."""
    return _NAMES.get(dtype, data_pb2.DATA_TYPE_UNSPECIFIED)
