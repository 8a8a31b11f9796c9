"""Text encoders: CLIP's, whose last hidden states the denoiser reads, and their tokenizers as one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor, nn

from export.diffusers.folder import Saved
from export.diffusers.refusals import bad_source, not_supported
from export.diffusers.weights import library, load
from export.package.schema import TOKENIZER_FILE
from export.package.tokenizer import Tokenizer

ENCODERS = ("CLIPTextModel",)
NAME = "text"
SAMPLES = ("", "a photo of a cat", "Two DOGS, one ball!")  # what both tokenizers are compared on


class Encoder(nn.Module):
    """Token ids [rows, length] -> hidden states [rows, length, width], after the last layer's norm."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor) -> Tensor:
        """See the class."""
        hidden: Tensor = self.network(tokens, return_dict=False)[0]
        return hidden


@dataclass(frozen=True)
class TextEncoder:
    """``tokenizer``: the bytes of tokenizer.json, which pads to ``length``; ``null``: the ids of no text."""

    module: nn.Module
    length: int
    width: int
    tokenizer: bytes
    null: tuple[int, ...]


def read_text_encoder(encoder: Saved, tokenizer: Path, variant: str | None) -> TextEncoder:
    """The encoder of a pipeline's folder.

    Raises PackageError: UNSUPPORTED_NETWORK (another class), BAD_SOURCE (a tokenizer that cannot be read),
    those of ``load``.
    """
    if encoder.kind not in ENCODERS:
        raise not_supported(
            encoder.config,
            f"the text encoder {encoder.kind} is not supported",
            f"Supported: {', '.join(ENCODERS)}",
        )
    network: Any = load(encoder, variant, of="transformers")
    network.set_attn_implementation("eager")  # masks that a graph can hold for any number of rows
    length = int(network.config.max_position_embeddings)
    content, null = _tokenizer(tokenizer, length)
    return TextEncoder(Encoder(network).eval(), length, int(network.config.hidden_size), content, null)


def _tokenizer(folder: Path, length: int) -> tuple[bytes, tuple[int, ...]]:
    """tokenizer.json that marks and pads as the folder's tokenizer does, and the ids of no text."""
    try:
        theirs: Any = library("transformers").AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        inner = theirs.backend_tokenizer
        inner.no_truncation()  # longer texts are refused, not cut
        inner.enable_padding(length=length, pad_id=theirs.pad_token_id, pad_token=theirs.pad_token)
    except Exception as error:  # whatever the many tokenizers raise
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise bad_source(
            folder, f"transformers does not read the tokenizer ({line})", "Save it again"
        ) from error
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / TOKENIZER_FILE
        inner.save(str(path))
        _compare(folder, Tokenizer(path), theirs, length)
        return path.read_bytes(), tuple(Tokenizer(path).encode("", marked=True))


def _compare(folder: Path, ours: Tokenizer, theirs: Any, length: int) -> None:
    for text in SAMPLES:
        wanted = theirs(text, padding="max_length", max_length=length, truncation=True).input_ids
        if ours.encode(text, marked=True) != list(wanted):
            raise bad_source(
                folder, f"its tokens of {text!r} cannot be written as {TOKENIZER_FILE}", "Save it again"
            )
