"""Data messages to rows and back: tensors, pictures, texts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.package.schema import ModelSpec
from pxserve.v1 import data_pb2
from serving.api.convert.images import levels_of, pngs_of, raster_of
from serving.api.convert.tensors import array_of, tensor_of
from serving.api.convert.texts import Codec, has_text, ids_of, texts_of
from serving.api.resolve.asked import Rows
from serving.api.resolve.rows import check_shape
from serving.errors import invalid
from serving.families.request import Array


def rows_of(
    data: data_pb2.Data, spec: ModelSpec, max_rows: int, field: str, codec: Codec | None = None
) -> Rows:
    """The rows, of the right rank and dtype; InvalidArgument where they cannot be read, or are too many."""
    kind = data.WhichOneof("value")
    if kind == "tensor":
        array = array_of(data.tensor, f"{field}.tensor", spec.data.dtype)
        check_shape(array.shape, spec.data, f"{field}.tensor.shape")
        return Rows(array, _lengths(data))
    if kind == "images":
        _check_count(len(data.images.png), max_rows, f"{field}.images")
        return Rows(_levels(data.images, spec, f"{field}.images"), _lengths(data))
    if kind == "texts":
        _check_count(len(data.texts.texts), max_rows, f"{field}.texts")
        return _tokens(data, spec, field, codec)
    raise invalid(field, "holds no rows: set tensor, images or texts")


def _check_count(rows: int, max_rows: int, field: str) -> None:
    if not rows:
        raise invalid(field, "holds no rows")
    if rows > max_rows:
        raise invalid(field, f"{rows} rows; this server answers at most {max_rows} per request")


def _lengths(data: data_pb2.Data) -> NDArray[np.int32] | None:
    return np.array(data.lengths, np.int32) if data.lengths else None


def _levels(images: data_pb2.Images, spec: ModelSpec, field: str) -> NDArray[np.int16]:
    raster = raster_of(spec.data)
    if raster is None:
        raise invalid(field, "rows of this model are no pictures with 8-bit levels; send a tensor")
    return levels_of(images.png, raster, f"{field}.png")


def _tokens(data: data_pb2.Data, spec: ModelSpec, field: str, codec: Codec | None) -> Rows:
    if not has_text(spec):
        raise invalid(f"{field}.texts", "this model has no tokenizer; send a tensor")
    if data.lengths:
        raise invalid(f"{field}.lengths", "texts have their own lengths")
    if data.texts.HasField("tokens"):
        raise invalid(f"{field}.texts.tokens", "belongs to replies; send texts, or a tensor of ids")
    ids, lengths = ids_of(data.texts.texts, spec.data.elements, f"{field}.texts", codec)
    return Rows(ids, lengths)


@dataclass(frozen=True)
class Writer:
    """Writes reply data in one encoding, chosen before any work is done."""

    spec: ModelSpec
    encoding: data_pb2.Encoding.ValueType
    codec: Codec | None = None  # None: bytes

    @classmethod
    def of(cls, spec: ModelSpec, asked: data_pb2.Encoding.ValueType, codec: Codec | None = None) -> Writer:
        """The writer that was asked for; InvalidArgument where the model's rows have no such form."""
        if asked == data_pb2.ENCODING_UNSPECIFIED:
            text = has_text(spec)
            return cls(spec, data_pb2.ENCODING_TEXT if text else data_pb2.ENCODING_TENSOR, codec)
        if asked not in data_pb2.Encoding.values():
            raise invalid("encoding", f"{asked} is no Encoding")
        if asked == data_pb2.ENCODING_PNG and raster_of(spec.data) is None:
            raise invalid("encoding", "rows of this model are no pictures with 8-bit levels")
        if asked == data_pb2.ENCODING_TEXT and not has_text(spec):
            raise invalid("encoding", "this model has no tokenizer")
        return cls(spec, asked, codec)

    @property
    def is_text(self) -> bool:
        """Whether replies carry text."""
        return self.encoding == data_pb2.ENCODING_TEXT

    def data(self, rows: Array, lengths: NDArray[np.int32] | None) -> data_pb2.Data:
        """The message of rows [..., *shape]; pictures and texts of nested rows come in row-major order."""
        if self.encoding == data_pb2.ENCODING_TENSOR:
            message = data_pb2.Data(tensor=tensor_of(rows))
        else:
            flat = rows.reshape(-1, *rows.shape[rows.ndim - len(self.spec.data.shape) :])
            message = (
                self._pictures(flat) if self.encoding == data_pb2.ENCODING_PNG else self._texts(flat, lengths)
            )
        if lengths is not None:
            message.lengths.extend(np.ravel(lengths).tolist())
        return message

    def _pictures(self, rows: Array) -> data_pb2.Data:
        raster = raster_of(self.spec.data)
        assert raster is not None, "checked when the encoding was chosen"
        return data_pb2.Data(images=data_pb2.Images(png=pngs_of(rows, raster)))

    def _texts(self, rows: Array, lengths: NDArray[np.int32] | None) -> data_pb2.Data:
        flat = None if lengths is None else np.ravel(lengths)
        tokens = tensor_of(rows.astype(np.int32, copy=False))
        return data_pb2.Data(texts=data_pb2.Texts(texts=texts_of(rows, flat, self.codec), tokens=tokens))
