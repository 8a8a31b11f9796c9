"""Text to token ids and back by the ``tokenizer.json`` of a package (the library ``tokenizers``)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from export.package.errors import PackageError, Reason

_BYTE = re.compile(r"^<0x([0-9A-Fa-f]{2})>$")  # byte fallback of SentencePiece
SPACE = "▁"


class Tokenizer:
    """Whole texts to ids and back; no begin or end symbol is shown, or added unless asked for.

    Special tokens that are written out in a text become their ids, as in transformers.
    """

    def __init__(self, path: Path) -> None:
        """Raises PackageError (MISSING_FILE; BAD_VALUE, also where the library is not installed)."""
        self._inner = _open(path)
        self.size: int = self._inner.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, *, marked: bool = False) -> list[int]:
        """Ids of ``text``; ``marked``: with the begin, end and padding that the file itself states."""
        ids: list[int] = self._inner.encode(text, add_special_tokens=marked).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids``; special tokens have none, incomplete characters become U+FFFD."""
        text: str = self._inner.decode([int(i) for i in ids], skip_special_tokens=True)
        return text

    def bytes_of(self, token: int) -> bytes:
        """UTF-8 of a token in the middle of a text; special tokens and unknown ids have none."""
        return self._pieces[token] if 0 <= token < len(self._pieces) else b""

    @cached_property
    def _pieces(self) -> list[bytes]:
        special = {i for i, token in self._inner.get_added_tokens_decoder().items() if token.special}
        count = max(self._inner.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        added = set(self._inner.get_added_tokens_decoder())
        known = [self._inner.id_to_token(i) for i in range(count)]
        level = _byte_level(known)
        return [
            b"" if piece is None or i in special else _piece(piece, level if i not in added else None)
            for i, piece in enumerate(known)
        ]


def _piece(piece: str, level: dict[str, int] | None) -> bytes:
    if level is not None:
        return bytes(level.get(character, 63) for character in piece)
    found = _BYTE.match(piece)
    return bytes([int(found[1], 16)]) if found else piece.replace(SPACE, " ").encode()


def _byte_level(pieces: Sequence[str | None]) -> dict[str, int] | None:
    """The characters that GPT-2's byte-level vocabularies write bytes with; None for other vocabularies."""
    table = _byte_characters()
    if SPACE in {piece[:1] for piece in pieces if piece}:
        return None
    singles = {piece for piece in pieces if piece and len(piece) == 1}
    return table if "Ġ" in {piece[:1] for piece in pieces if piece} or set(table) <= singles else None


def _byte_characters() -> dict[str, int]:
    """Printable bytes stand for themselves, the others for characters from U+0100 on (Radford et al.)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(b): b for b in shown} | {chr(256 + n): byte for n, byte in enumerate(hidden)}


def _open(path: Path) -> Any:
    try:
        library: Any = import_module("tokenizers")
    except ImportError as error:
        raise PackageError(
            Reason.BAD_VALUE,
            path,
            "reading text needs the library tokenizers, which is not installed",
            "pip install tokenizers, or send token ids",
        ) from error
    if not path.is_file():
        raise PackageError(Reason.MISSING_FILE, path, "there is no such file", "Export the package again")
    try:
        return library.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise PackageError(
            Reason.BAD_VALUE, path, f"not a tokenizer.json ({error})", "Save the tokenizer again"
        ) from error
