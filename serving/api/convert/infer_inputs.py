"""Inputs of the Open Inference Protocol: rows, masks, latents and conditions, taken by name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from export.package.schema import ModelSpec
from pxserve.v1 import data_pb2
from serving.api.convert.infer_tensors import Input
from serving.api.convert.rows import rows_of
from serving.api.convert.texts import has_text
from serving.api.resolve.asked import Rows
from serving.api.resolve.request import Rules
from serving.api.resolve.rows import check_shape
from serving.errors import invalid
from serving.families.request import Operation

MAX_NAME = 60  # characters of a name that an error repeats

# Inputs by operation, beside the model's conditions.
INPUTS: Mapping[Operation, tuple[str, ...]] = {
    Operation.SAMPLE: ("prompt", "lengths", "stop"),
    Operation.LIKELIHOOD: ("data", "lengths", "observed"),
    Operation.INPAINT: ("data", "lengths", "observed", "stop"),
    Operation.SCORE_ANOMALY: ("data", "lengths"),
    Operation.ENCODE: ("data", "lengths"),
    Operation.DECODE: ("latents", "stop"),
    Operation.RECONSTRUCT: ("data", "lengths"),
    Operation.INTERPOLATE: ("start", "end", "lengths", "end_lengths", "stop"),
}


class Inputs:
    """Takes the inputs by name, each once; what is left over is refused."""

    def __init__(self, given: dict[str, Input], rules: Rules, operation: Operation) -> None:
        self._given = given
        self._rules = rules
        self._operation = operation

    def take(self, name: str) -> Input | None:
        """None where it is not given, or is none of this operation's."""
        takes = name in INPUTS[self._operation] or name in self._condition_names()
        return self._given.pop(name, None) if takes else None

    def rows(self, name: str, lengths: str) -> Rows | None:
        """Rows of the data space, from a tensor, from PNG files or from texts."""
        one = self.take(name)
        if one is None:
            return None
        spec, counts = self._rules.spec, self._lengths(lengths)
        if one.is_bytes:
            data = _message(one, spec)
            data.lengths.extend([] if counts is None else counts.tolist())
            return rows_of(data, spec, self._rules.max_rows, one.field, self._rules.codec)
        array = one.array(spec.data.dtype)
        check_shape(array.shape, spec.data, f"{one.field}.shape")
        return Rows(array, counts)

    def latents(self) -> NDArray[np.float32] | None:
        """[rows, *latent]."""
        one = self.take("latents")
        return None if one is None else one.array("float32").astype(np.float32, copy=False)

    def observed(self) -> NDArray[np.bool_] | None:
        """Bool, true = given."""
        one = self.take("observed")
        return None if one is None else np.asarray(one.array("bool"), np.bool_)

    def texts(self, name: str) -> tuple[str, ...]:
        """Texts that are no rows; empty where they are not given."""
        one = self.take(name)
        return () if one is None else tuple(_texts(one))

    def end(self) -> None:
        """InvalidArgument where an input is left."""
        for one in self._given.values():
            names = [*INPUTS[self._operation], *sorted(self._condition_names())]
            raise invalid(
                f"inputs[{one.tensor.name[:MAX_NAME]}]",
                f"{self._operation} has no such input; it has {', '.join(names)}",
            )

    def _lengths(self, name: str) -> NDArray[np.int32] | None:
        one = self.take(name)
        if one is None:
            return None
        lengths = one.array("int32").astype(np.int32, copy=False)
        if lengths.ndim != 1:
            raise invalid(f"{one.field}.shape", "must be [rows]")
        return lengths

    def _condition_names(self) -> set[str]:
        return {condition.name for condition in self._rules.spec.conditions}


def _message(one: Input, spec: ModelSpec) -> data_pb2.Data:
    """Texts where the model has a tokenizer, else PNG files."""
    if has_text(spec):
        return data_pb2.Data(texts=data_pb2.Texts(texts=_texts(one)))
    return data_pb2.Data(images=data_pb2.Images(png=one.strings()))


def _texts(one: Input) -> list[str]:
    try:
        return [entry.decode("utf-8") for entry in one.strings()]
    except UnicodeDecodeError as error:
        raise invalid(one.field, "holds bytes that are not UTF-8") from error
