from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.package.errors import PackageError
from export.package.tokenizer import Tokenizer
from serving.api.convert.texts import TokenizerCodec
from serving.families.autoregressive.stopping import patterns, stopped_text
from tests.export.transformers.folders import byte_level, metaspace

TEXTS = ["the import statement", " leading", "naïve — ☃ 🙂 done", "a b cab.a", "ab  a", "x\n\ny"]
MAKERS = {"byte level": byte_level, "pieces with spaces": metaspace}


@pytest.fixture(params=MAKERS)
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    MAKERS[request.param](tmp_path / "tokenizer.json")
    return Tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_survives_its_ids(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert 1 not in ids, "a begin symbol is not part of the text"
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("given", [0, 1, 3])
def test_pieces_of_a_growing_row_are_whole_characters_that_add_up(
    tokenizer: Tokenizer, text: str, given: int
) -> None:
    ids = np.array(tokenizer.encode("a" + text))
    given = min(given, len(ids))
    stream = TokenizerCodec(tokenizer).growing(given)
    pieces = [stream.grown(ids, length)[0] for length in range(given + 1, len(ids) + 1)]
    pieces.append(stream.grown(ids, len(ids), final=True)[0])
    assert "\ufffd" not in "".join(pieces[:-1])
    shown = tokenizer.decode(ids[:given].tolist())
    if "\ufffd" not in shown:
        assert shown + "".join(pieces) == tokenizer.decode(ids.tolist())


def test_a_row_that_ends_inside_a_character_says_so(tokenizer: Tokenizer) -> None:
    ids = np.array(tokenizer.encode("☃")[:-1])
    stream = TokenizerCodec(tokenizer).growing(0)
    assert "\ufffd" not in stream.grown(ids, len(ids))[0]
    assert stream.grown(ids, len(ids), final=True)[0].endswith("\ufffd")


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_of_tokens_are_the_bytes_of_the_text(tokenizer: Tokenizer, text: str) -> None:
    found = b"".join(tokenizer.bytes_of(token) for token in tokenizer.encode(text))
    assert found.decode().strip(" ") == text.strip(" ")
    assert tokenizer.bytes_of(1) == b"", "special tokens have no text"
    assert tokenizer.bytes_of(10**6) == b""


def test_a_stop_string_ends_the_row_before_the_token_in_which_it_begins(tmp_path: Path) -> None:
    byte_level(tmp_path / "tokenizer.json")
    tokenizer = Tokenizer(tmp_path / "tokenizer.json")
    ids = tokenizer.encode("say the import")
    table = patterns(("y the",))
    cuts = [stopped_text(ids[:n], table, tokenizer.bytes_of) for n in range(1, len(ids) + 1)]
    hit = next(n for n, cut in enumerate(cuts) if cut)
    assert tokenizer.decode(ids[: hit + 1 - cuts[hit]]) == "sa"
    assert "y the" in tokenizer.decode(ids[: hit + 1])
    assert stopped_text([], table, tokenizer.bytes_of) == 0


def test_a_broken_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(PackageError, match=r"not a tokenizer\.json"):
        Tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(PackageError, match="no such file"):
        Tokenizer(tmp_path / "absent.json")
