"""Texts as conditions: token ids by the package's tokenizer, none where absent, refused where too long."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from export.package.schema import Condition
from serving.api.resolve.asked import Given
from serving.api.resolve.conditions import conditions_of
from serving.errors import InvalidArgument
from tests.serving.api.fake_models import DIGITS, SPECS

LENGTH, BEGIN, END = 5, 1, 2
TEXT = Condition(name="text", kind="text", shape=(LENGTH, 3), null_tokens=(1, 2, 2, 2, 2), when_absent="null")
STYLE = Condition(name="style", kind="class", classes=3)
SPEC = SPECS[DIGITS].model_copy(update={"conditions": (TEXT, STYLE)})


class Letters:
    """A token is a letter; begin, end, and padding like the end."""

    def marked(self, text: str) -> list[int]:
        ids = [BEGIN, *(ord(letter) for letter in text), END]
        return ids + [END] * (LENGTH - len(ids))

    ids = text = growing = marked


def read(*given: Given, rows: int = 2) -> Any:
    codec: Any = Letters()
    return conditions_of((*given, Given("style", np.array([0]))), SPEC, rows, codec)["text"]


def texts(*several: str) -> Given:
    return Given("text", np.array(several, object))


def test_texts_become_ids_one_for_all_rows_or_one_each() -> None:
    assert read(texts("ab", "c")).tolist() == [[1, 97, 98, 2, 2], [1, 99, 2, 2, 2]]
    assert read(texts("ab")).tolist() == [[1, 97, 98, 2, 2]] * 2


@pytest.mark.parametrize("given", [(), (Given("text", None),), (texts(""),)])
def test_no_text_is_the_null_value(given: tuple[Given, ...]) -> None:
    assert read(*given).tolist() == [list(TEXT.null_tokens)] * 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (texts("abcd"), "has 6 tokens; at most 5"),
        (texts("a", "b", "c"), r"must be \[1 or 2, 5\]"),
        (Given("text", np.array([3])), "'text' is a text: set texts"),
    ],
)
def test_what_is_no_such_text_is_refused(given: Given, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        read(given)


def test_a_text_is_no_class() -> None:
    with pytest.raises(InvalidArgument, match="'style' is a class: set labels"):
        conditions_of((Given("style", np.array(["a"], object)),), SPEC, 1)
