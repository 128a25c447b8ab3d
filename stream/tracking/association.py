"""Which detection is which track: how likely each pair is, and the best one-to-one matching of it.

Knows nothing of motion, time or identities: it compares expected places with seen ones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream.tracking.assignment import linear_sum_assignment

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_NONE: Indices = np.zeros(0, np.intp)


def log_likelihood(expected: Array, variances: Array, seen: Array, tail: float) -> Array:
    """How likely each track shows itself as each detection: log density (N, M), up to a constant.

    The density is Student's t with ``tail`` degrees of freedom, a Gaussian with heavier tails, since
    detections of half hidden objects are off by more than their noise. It is per box height, so that
    near and far objects compare, and it is lower the less is known of the track, so that one long
    unseen takes a detection only where no other claims it (global nearest neighbour, Blackman 1986).

    Args:
        expected: centre x, centre y, width, height of the tracks, (N, 4), in pixels.
        variances: of ``expected`` and the detection's noise together, (N, 4), in pixels squared.
        seen: centre x, centre y, width, height of the detections, (M, 4), in pixels.
        tail: degrees of freedom.
    """
    weight = 1.0 / variances
    distance = np.zeros((len(expected), len(seen)))
    for axis in range(4):  # not one product of matrices: BLAS would start threads for it
        squares = seen[:, axis] - expected[:, axis, None]
        squares *= squares
        squares *= weight[:, axis, None]
        distance += squares
    distance /= tail
    np.log1p(distance, out=distance)
    distance *= -0.5 * (tail + 4.0)
    heights = np.maximum(expected[:, 3:], 1.0)
    distance += 0.5 * np.log(weight * heights**2).sum(axis=1, keepdims=True)
    return distance


def match(gains: Array) -> tuple[Indices, Indices]:
    """The one-to-one pairs (rows, columns) of greatest total gain; a pair that gains nothing is none."""
    if gains.size == 0:
        return _NONE, _NONE
    rows, columns = linear_sum_assignment(np.maximum(gains, 0.0), maximize=True)
    good = gains[rows, columns] > 0.0
    return rows[good], columns[good]
