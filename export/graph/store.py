"""Where the weights of a graph go: into the graph, or piece by piece into a file beside it."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import onnx
import torch
from onnx import TensorProto, numpy_helper

ELEMENTS = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.uint8: TensorProto.UINT8,
    torch.int64: TensorProto.INT64,
    torch.int32: TensorProto.INT32,
}
ALIGNMENT = 4096  # a page, so that the runtime can map a weight instead of reading it
LEAST_OUTSIDE_BYTES = 1024  # smaller ones stay in the graph, where shapes are inferred from them


class Store(Protocol):
    """Takes one weight at a time."""

    def add(self, name: str, value: torch.Tensor) -> onnx.TensorProto:
        """Keep ``value`` under ``name``; the initializer that stands for it."""


class Inside:
    """Everything in the graph itself, which must stay below protobuf's 2 GiB."""

    def add(self, name: str, value: torch.Tensor) -> onnx.TensorProto:
        """See Store."""
        return _whole(name, value)


class Beside:
    """Large weights in one file beside the graph; a context manager. OSError passes through."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("xb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, name: str, value: torch.Tensor) -> onnx.TensorProto:
        """See Store."""
        if value.numel() * value.element_size() < LEAST_OUTSIDE_BYTES:
            return _whole(name, value)
        offset = -(-self._file.tell() // ALIGNMENT) * ALIGNMENT
        self._file.seek(offset, os.SEEK_SET)
        written = self._file.write(_bytes(value))
        tensor = TensorProto(
            name=name, data_type=ELEMENTS[value.dtype], dims=value.shape, data_location=TensorProto.EXTERNAL
        )
        for key, entry in (("location", self.path.name), ("offset", offset), ("length", written)):
            tensor.external_data.add(key=key, value=str(entry))
        return tensor


def _whole(name: str, value: torch.Tensor) -> onnx.TensorProto:
    if value.dtype != torch.bfloat16:
        return numpy_helper.from_array(value.contiguous().numpy(), name)
    return TensorProto(
        name=name, data_type=TensorProto.BFLOAT16, dims=value.shape, raw_data=bytes(_bytes(value))
    )


def _bytes(value: torch.Tensor) -> memoryview:
    flat = value.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
