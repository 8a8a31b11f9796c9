"""Text to token ids and back through the package's tokenizer; ids are the truth."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from export.package.errors import PackageError
from export.package.schema import TOKENIZER_FILE, ModelSpec
from export.package.tokenizer import Tokenizer
from serving.errors import FailedPrecondition, invalid
from serving.families.request import Array

BYTES = 256  # ids of the byte tokenizer; larger ids are symbols without text (begin, end)
INCOMPLETE = "\ufffd"  # what a piece of a character decodes to
KEPT_TOKENIZERS = 16


class Growing(Protocol):
    """Text of one growing row, in whole characters."""

    def grown(self, row: Array, length: int, final: bool = False) -> tuple[str, list[int]]:
        """What came since the last call: text up to the last whole character, and the new ids."""


class Codec(Protocol):
    """Texts to ids and back, one text at a time."""

    def ids(self, text: str) -> list[int]:
        """Token ids, without a begin symbol."""

    def marked(self, text: str) -> list[int]:
        """Token ids of a condition, with the tokenizer's own begin, end and padding."""

    def text(self, ids: Array) -> str:
        """The text of [length] ids; invalid bytes become U+FFFD."""

    def growing(self, start: int) -> Growing:
        """Text of a row from entry ``start`` on."""


class TextStream:
    """``Growing`` of bytes."""

    def __init__(self, start: int = 0) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._seen = start

    def grown(self, row: Array, length: int, final: bool = False) -> tuple[str, list[int]]:
        """See Growing."""
        new = row[self._seen : length]
        self._seen = max(self._seen, length)
        return self._decoder.decode(_bytes_of(new), final), [int(token) for token in new]


class TokenStream:
    """``Growing`` of a tokenizer's tokens.

    A token's text may depend on those before it (spaces, parts of characters), so each piece is the
    difference of two texts that begin at the same earlier token: with the new tokens, and without.
    """

    def __init__(self, tokenizer: Tokenizer, start: int) -> None:
        self._tokenizer = tokenizer
        self._context = max(0, start - 8)  # where both texts begin
        self._shown = start  # up to where text has been given
        self._seen = start

    def grown(self, row: Array, length: int, final: bool = False) -> tuple[str, list[int]]:
        """See Growing."""
        new = [int(token) for token in row[self._seen : length]]
        self._seen = max(self._seen, length)
        before = self._tokenizer.decode(row[self._context : self._shown].tolist())
        after = self._tokenizer.decode(row[self._context : self._seen].tolist())
        if not final and (after.endswith(INCOMPLETE) or len(after) <= len(before)):
            return "", new
        self._context, self._shown = max(self._context, self._shown - 8), self._seen
        return after[len(before) :], new


class ByteCodec:
    """A token is a byte of UTF-8."""

    def ids(self, text: str) -> list[int]:
        """See Codec."""
        return list(text.encode("utf-8"))

    def marked(self, text: str) -> list[int]:
        """See Codec."""
        return self.ids(text)

    def text(self, ids: Array) -> str:
        """See Codec."""
        return _bytes_of(ids).decode("utf-8", "replace")

    def growing(self, start: int) -> Growing:
        """See Codec."""
        return TextStream(start)


class TokenizerCodec:
    """The package's tokenizer.json."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def ids(self, text: str) -> list[int]:
        """See Codec."""
        return self._tokenizer.encode(text)

    def marked(self, text: str) -> list[int]:
        """See Codec."""
        return self._tokenizer.encode(text, marked=True)

    def text(self, ids: Array) -> str:
        """See Codec."""
        return self._tokenizer.decode(ids.tolist())

    def growing(self, start: int) -> Growing:
        """See Codec."""
        return TokenStream(self._tokenizer, start)


def has_text(spec: ModelSpec) -> bool:
    """Whether the package carries a tokenizer."""
    return spec.autoregressive is not None and spec.autoregressive.tokenizer != "none"


def codec_of(spec: ModelSpec, folder: Path | None) -> Codec:
    """How texts of this package become ids; its tokenizer is opened at the first text."""
    section = spec.autoregressive
    carried = any(condition.kind == "text" for condition in spec.conditions)
    carried |= section is not None and section.tokenizer == "huggingface"
    if folder is None or not carried:
        return ByteCodec()
    return Lazy(folder / TOKENIZER_FILE, spec.files[TOKENIZER_FILE])


class Lazy:
    """A TokenizerCodec that is opened when it is needed first."""

    def __init__(self, path: Path, digest: str) -> None:
        self._place = (path, digest)

    def ids(self, text: str) -> list[int]:
        """See Codec."""
        return _opened(*self._place).ids(text)

    def marked(self, text: str) -> list[int]:
        """See Codec."""
        return _opened(*self._place).marked(text)

    def text(self, ids: Array) -> str:
        """See Codec."""
        return _opened(*self._place).text(ids)

    def growing(self, start: int) -> Growing:
        """See Codec."""
        return _opened(*self._place).growing(start)


@lru_cache(maxsize=KEPT_TOKENIZERS)
def _opened(path: Path, digest: str) -> TokenizerCodec:
    """``digest`` makes another file another entry."""
    try:
        return TokenizerCodec(Tokenizer(path))
    except PackageError as error:
        raise FailedPrecondition(f"{error.problem}: {error.fix}", reason="NOT_READY") from error


def ids_of(
    texts: Sequence[str], most: int, field: str, codec: Codec | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Token ids [rows, longest] padded with 0, and lengths [rows]; each text has 1 .. ``most`` tokens."""
    codec = codec or ByteCodec()
    encoded = [codec.ids(text) for text in texts]
    for index, row in enumerate(encoded):
        if not 1 <= len(row) <= most:
            raise invalid(f"{field}[{index}]", f"has {len(row)} tokens; must be 1..{most}")
    lengths = np.array([len(row) for row in encoded], np.int32)
    ids = np.zeros((len(encoded), int(lengths.max(initial=0))), np.int32)
    for tokens, content in zip(ids, encoded, strict=True):
        tokens[: len(content)] = content
    return ids, lengths


def texts_of(rows: Array, lengths: Array | None, codec: Codec | None = None) -> list[str]:
    """One text per row of ids [rows, length]."""
    codec = codec or ByteCodec()
    ends = lengths if lengths is not None else np.full(len(rows), rows.shape[1])
    return [codec.text(row[:end]) for row, end in zip(rows, ends, strict=True)]


def _bytes_of(ids: Array) -> bytes:
    return ids[np.less(ids, BYTES)].astype(np.uint8).tobytes()
