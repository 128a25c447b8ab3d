"""What a sample of scores shows of itself: whether their sigmoid or softmax is already done.

A sample is a model's answer to one picture: hundreds of rows, which do not lie in 0-1 or sum to 1 by
chance. Knows nothing of families.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from export.pixels import Array

Activation = Literal["softmax", "sigmoid", "none"]

_ROUNDING = 1e-3


def in_unit_range(values: Array) -> bool:
    """Whether every value lies in 0-1."""
    return bool(values.size and values.min() >= -_ROUNDING and values.max() <= 1 + _ROUNDING)


def activation(scores: Array) -> Activation:
    """What was done to scores (..., C): each row is a distribution, each lies in 0-1, or neither."""
    if not in_unit_range(scores):
        return "none"
    sums = scores.astype(np.float64).sum(axis=-1)
    return "softmax" if bool(np.allclose(sums, 1, atol=_ROUNDING)) else "sigmoid"
