"""What a condition is where nobody gives it."""

from __future__ import annotations

import numpy as np

from export.package.schema import Condition
from serving.families.request import Array


def absent(condition: Condition, rows: int) -> Array:
    """Its null value: a class id int64 [rows], token ids int64 [rows, length], or zeros [rows, *shape]."""
    if condition.kind == "class":
        return np.full(rows, condition.null_value or 0, np.int64)
    if condition.kind == "text":
        return np.tile(np.array(condition.null_tokens, np.int64), (rows, 1))
    return np.zeros((rows, *condition.shape), np.float32)
