"""The data of the reference zoo: handwritten digits, and English prose about Python.

Digits: scikit-learn's copy of the test set of UCI "Optical Recognition of Handwritten Digits" (Alpaydin
and Kaynak, 1998): 1,797 images of 8x8 pixels with levels 0..16, split 1,297 / 250 / 250, stratified by
class, by a fixed seed. Text: the help topics that ship with Python 3.11 (``pydoc_data.topics``); since
patch releases edit them, a compressed copy of 3.11.7's is kept beside this module.
"""

from __future__ import annotations

import lzma
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

LEVELS = 17
SPLIT_SEED = 20_260_101
CALIBRATION_ROWS = 250
TEST_ROWS = 250
SYMBOLS_MAX = 256  # of a text row, its end symbol included
END_SYMBOL = 256

_CORPUS = Path(__file__).with_name("corpus") / "python-3.11.7-topics.txt.xz"


@dataclass(frozen=True)
class Labelled:
    """Images uint8 [rows, 1, 8, 8] (levels 0..16) and their classes int64 [rows]."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class DigitSplits:
    """Three disjoint sets: to fit on, to calibrate anomaly scores on, and to report figures on."""

    train: Labelled
    calibration: Labelled
    test: Labelled


@dataclass(frozen=True)
class TextSplits:
    """Rows of bytes, each of at most 255; no sentence of the training set is in the others."""

    train: tuple[bytes, ...]
    calibration: tuple[bytes, ...]
    test: tuple[bytes, ...]


@cache
def digits() -> DigitSplits:
    """The digits, split the same way everywhere."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 1, 8, 8).astype(np.uint8)
    labels = labels.astype(np.int64)
    test = _stratified(labels, np.arange(len(labels)), TEST_ROWS, SPLIT_SEED)
    rest = np.setdiff1d(np.arange(len(labels)), test)
    calibration = _stratified(labels, rest, CALIBRATION_ROWS, SPLIT_SEED + 1)
    train = np.setdiff1d(rest, calibration)
    return DigitSplits(*(Labelled(images[rows], labels[rows]) for rows in (train, calibration, test)))


def _stratified(
    labels: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], count: int, seed: int
) -> npt.NDArray[np.int64]:
    """``count`` of ``rows``, as many of each class (25 of each of ten for 250), ascending."""
    rng = np.random.Generator(np.random.PCG64(seed))
    per_class = count // 10
    chosen = [rng.permutation(rows[labels[rows] == digit])[:per_class] for digit in range(10)]
    return np.sort(np.concatenate(chosen))


@cache
def text() -> TextSplits:
    """Rows of whole sentences from the help topics; two topics of ten are held out.

    Topics quote one another, so held-out sentences that the training set has too are left out. The rest,
    in rows, calibrates and tests in turns.
    """
    topics = lzma.decompress(_CORPUS.read_bytes()).decode("utf-8").split("\x00")
    sentences = [_sentences(topic) for topic in topics]
    held_out = [index % 10 in (3, 7) for index in range(len(topics))]
    fitted = [own for own, held in zip(sentences, held_out, strict=True) if not held]
    seen = {sentence for own in fitted for sentence in own}
    unseen = [
        [sentence for sentence in own if sentence not in seen]
        for own, held in zip(sentences, held_out, strict=True)
        if held
    ]
    rows = list(dict.fromkeys(_rows(unseen)))
    return TextSplits(_rows(fitted), tuple(rows[0::2]), tuple(rows[1::2]))


def _rows(topics: list[list[bytes]]) -> tuple[bytes, ...]:
    return tuple(row for sentences in topics for row in _packed(sentences))


def _packed(sentences: list[bytes]) -> list[bytes]:
    """Consecutive sentences in rows of at most ``SYMBOLS_MAX`` - 1 bytes."""
    rows: list[bytes] = []
    row = b""
    for sentence in sentences:
        joined = row + b" " + sentence if row else sentence
        if len(joined) < SYMBOLS_MAX:
            row = joined
            continue
        if row:
            rows.append(row)
        row = sentence[: SYMBOLS_MAX - 1]
    return [*rows, row] if row else rows


def _sentences(topic: str) -> list[bytes]:
    """The prose of a topic, without headings' underlines and without tables and code."""
    plain = re.sub(r"[*=~^\"-]{4,}", "", topic)
    paragraphs = (" ".join(paragraph.split()) for paragraph in plain.split("\n\n"))
    prose = (paragraph for paragraph in paragraphs if re.match(r"[A-Z]", paragraph) and len(paragraph) > 40)
    return [s.encode("utf-8") for paragraph in prose for s in re.split(r"(?<=[.:!?]) (?=[A-Z])", paragraph)]
