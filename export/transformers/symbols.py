"""The symbols that begin and end rows, and the tokenizer: as the folder says, or as the caller does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from export.package.schema import TOKENIZER_FILE
from export.transformers.folder import Source
from export.transformers.refusal import bad_source

OLD_FILES = ("vocab.json", "merges.txt")  # of byte-level tokenizers before tokenizer.json


@dataclass(frozen=True)
class Symbols:
    """``begin`` stands before every row, as ``reason`` says; ``ends`` end a row of variable length."""

    begin: int
    ends: tuple[int, ...]
    reason: str


@contextmanager
def tokenizer_file(source: Source) -> Iterator[Path | None]:
    """The folder's tokenizer.json, made from older files where they are there; None where there is none."""
    folder = source.folder
    if (folder / TOKENIZER_FILE).is_file():
        yield folder / TOKENIZER_FILE
    elif all((folder / name).is_file() for name in OLD_FILES):
        with TemporaryDirectory() as scratch:
            path = Path(scratch) / TOKENIZER_FILE
            _tokenizer(folder).backend_tokenizer.save(str(path))
            yield path
    else:
        yield None


def symbols_of(source: Source, begin: int | None, vocabulary: int) -> Symbols:
    """Begin and end symbols; refuses to guess a beginning that nothing states."""
    found, reason = _begin(source, begin)
    size = source.config.vocab_size
    if found is None or not 0 <= found < size:
        what = (
            "nothing in the folder names one" if found is None else f"{reason} is {found}, of {size} tokens"
        )
        raise bad_source(
            source.folder,
            f"which token begins a row? {what}",
            "Give --begin-token ID (often the id of <s>, <|endoftext|> or <|begin_of_text|>)",
        )
    ends = source.stated("eos_token_id")
    listed = [] if ends is None else ends if isinstance(ends, list | tuple) else [ends]
    return Symbols(found, tuple(dict.fromkeys(e for e in listed if 0 <= e < vocabulary)), reason)


def _begin(source: Source, given: int | None) -> tuple[int | None, str]:
    if given is not None:
        return given, "--begin-token"
    if source.entry.pixels:
        return source.config.vocab_size - 1, "the last token of an ImageGPT"
    added = _added_by_tokenizer(source.folder)
    if added is not None:
        return added, "the tokenizer adds it"
    return source.stated("bos_token_id"), "bos_token_id; the tokenizer itself adds none"


def _added_by_tokenizer(folder: Path) -> int | None:
    """The token that the folder's tokenizer puts before every text."""
    if not (folder / TOKENIZER_FILE).is_file() and not (folder / OLD_FILES[0]).is_file():
        return None
    tokenizer = _tokenizer(folder)
    with_added = tokenizer("a")["input_ids"]
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    return int(with_added[0]) if len(with_added) > len(plain) and with_added[0] != plain[0] else None


def _tokenizer(folder: Path) -> Any:
    library: Any = import_module("transformers")
    try:
        return library.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever the many tokenizers raise
        text = (str(error).splitlines() or [""])[0]
        raise bad_source(
            folder, f"transformers does not read the tokenizer ({text})", "Save it again"
        ) from error
