"""NumPy arrays as tensors of the contract, and back."""

from __future__ import annotations

import math
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from pxserve.errors import PxserveError, refuse
from pxserve.v1 import data_pb2

Array = NDArray[np.generic]

DTYPES: dict[data_pb2.DataType.ValueType, np.dtype[Any]] = {
    data_pb2.DATA_TYPE_BOOL: np.dtype("?"),
    data_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
    data_pb2.DATA_TYPE_INT32: np.dtype("<i4"),
    data_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
    data_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    data_pb2.DATA_TYPE_FLOAT64: np.dtype("<f8"),
}
_TYPES = {dtype: number for number, dtype in DTYPES.items()}


def to_tensor(array: Array) -> data_pb2.Tensor:
    """Row-major little-endian copy; ``array`` must have one of the contract's dtypes."""
    dtype = array.dtype.newbyteorder("<")
    raw = np.ascontiguousarray(array, dtype).tobytes()
    return data_pb2.Tensor(dtype=_TYPES[dtype], shape=array.shape, data=raw)


def from_tensor(tensor: data_pb2.Tensor) -> Array:
    """Writable array; raises PxserveError (INTERNAL) where the bytes do not match shape and dtype."""
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None or len(tensor.data) != math.prod(tensor.shape) * dtype.itemsize:
        claim = f"dtype {tensor.dtype}, shape {list(tensor.shape)}, {len(tensor.data)} bytes"
        raise PxserveError(grpc.StatusCode.INTERNAL, f"the reply's tensor does not parse: {claim}")
    return np.frombuffer(tensor.data, dtype).reshape(tuple(tensor.shape)).astype(dtype.newbyteorder("="))


def exactly(array: Array, dtype: np.dtype[Any], field: str) -> Array:
    """``array`` as ``dtype`` where that keeps every value; floats may round to the nearest narrower float.

    Raises PxserveError (INVALID_ARGUMENT) naming ``field`` where integers would change.
    """
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "biuf":
        refuse(field, f"{array.dtype} cannot become {dtype}")
    with np.errstate(invalid="ignore", over="ignore"):
        cast = array.astype(dtype)
    if not (dtype.kind == array.dtype.kind == "f" or np.array_equal(cast, array)):
        refuse(field, f"holds values that {dtype} cannot hold (it is {array.dtype})")
    return cast


def to_observed(observed: object) -> data_pb2.Tensor:
    """Mask of any shape, true = given; numbers must be 0 or 1."""
    return to_tensor(exactly(np.asarray(observed), np.dtype("?"), "observed"))
