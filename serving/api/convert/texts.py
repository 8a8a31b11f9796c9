"""Text to token ids and back through the package's tokenizer; ids are the truth."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from export.package.schema import ModelSpec
from serving.errors import invalid
from serving.families.request import Array

BYTES = 256  # ids of the byte tokenizer; larger ids are symbols without text (begin, end)


def has_text(spec: ModelSpec) -> bool:
    """Whether the package carries a tokenizer."""
    return spec.autoregressive is not None and spec.autoregressive.tokenizer == "bytes"


def ids_of(texts: Sequence[str], most: int, field: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Token ids [rows, longest] padded with 0, and lengths [rows]; each text has 1 .. ``most`` tokens."""
    encoded = [text.encode("utf-8") for text in texts]
    for index, row in enumerate(encoded):
        if not 1 <= len(row) <= most:
            raise invalid(f"{field}[{index}]", f"has {len(row)} tokens; must be 1..{most}")
    lengths = np.array([len(row) for row in encoded], np.int32)
    ids = np.zeros((len(encoded), int(lengths.max(initial=0))), np.int32)
    for tokens, content in zip(ids, encoded, strict=True):
        tokens[: len(content)] = np.frombuffer(content, np.uint8)
    return ids, lengths


def texts_of(rows: Array, lengths: Array | None) -> list[str]:
    """One text per row of ids [rows, length]; invalid bytes become U+FFFD."""
    ends = lengths if lengths is not None else np.full(len(rows), rows.shape[1])
    return [_bytes_of(row[:end]).decode("utf-8", "replace") for row, end in zip(rows, ends, strict=True)]


class TextStream:
    """Text of one growing row from entry ``start`` on, in whole characters."""

    def __init__(self, start: int = 0) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._seen = start

    def grown(self, row: Array, length: int, final: bool = False) -> tuple[str, list[int]]:
        """What came since the last call: text up to the last whole character, and the new ids."""
        new = row[self._seen : length]
        self._seen = max(self._seen, length)
        return self._decoder.decode(_bytes_of(new), final), [int(token) for token in new]


def _bytes_of(ids: Array) -> bytes:
    return ids[np.less(ids, BYTES)].astype(np.uint8).tobytes()
