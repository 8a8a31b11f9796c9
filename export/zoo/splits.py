"""The splits as files, for whoever wants to ask the reference models about rows that they never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from export.zoo.data import digits, text

SPLITS = ("train", "calibration", "test")


def write_splits(to: Path) -> list[Path]:
    """``digits-SPLIT.npz`` (data uint8 [rows, 1, 8, 8], label) and ``text-SPLIT.npz`` (data, lengths)."""
    to.mkdir(parents=True, exist_ok=True)
    written = []
    for split in SPLITS:
        images, rows = getattr(digits(), split), getattr(text(), split)
        written += [to / f"digits-{split}.npz", to / f"text-{split}.npz"]
        np.savez_compressed(written[-2], data=images.images, label=images.labels)
        np.savez_compressed(written[-1], data=_padded(rows), lengths=_lengths(rows))
    return written


def _lengths(rows: tuple[bytes, ...]) -> np.ndarray:
    return np.array([len(row) for row in rows], np.int32)


def _padded(rows: tuple[bytes, ...]) -> np.ndarray:
    data = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for index, row in enumerate(rows):
        data[index, : len(row)] = np.frombuffer(row, np.uint8)
    return data
