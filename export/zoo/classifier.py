"""A classifier of real digits, to ask of generated ones: which class, and are all ten there?"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from export.zoo.data import digits


@cache
def _fitted() -> Any:
    from sklearn.svm import SVC

    train = digits().train
    return SVC(gamma=0.001, C=10.0).fit(_flat(train.images), train.labels)


def _flat(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return images.reshape(len(images), 64).astype(np.float64)


def classify(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Classes int64 [rows] of levels uint8 [rows, 1, 8, 8] (an RBF support vector machine)."""
    predicted: npt.NDArray[np.int64] = _fitted().predict(_flat(images)).astype(np.int64)
    return predicted


def coverage(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Share of each of the ten classes among images; float64 [10], sums to 1."""
    counts = np.bincount(classify(images), minlength=10)
    return counts / len(images)
