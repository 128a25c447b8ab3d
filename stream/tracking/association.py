"""Which detection is which track: how likely each pair is, and the best one-to-one matching of them.

Knows nothing of motion, time or identities: it compares expected places with seen ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream.tracking.assignment import linear_sum_assignment

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]


class Pairs(NamedTuple):
    """Tracks and detections that may be the same object, each pair once."""

    tracks: Indices
    """(K,)"""
    detections: Indices
    """(K,)"""
    gains: Array
    """float64 (K,): how much likelier the same object than not, in nats."""

    def where(self, these: Bools) -> Pairs:
        return Pairs(self.tracks[these], self.detections[these], self.gains[these])


def plausible(expected: Array, variances: Array, seen: Array, tail: float, chance: float) -> Pairs:
    """All pairs of a track and a detection that are likelier the same object than not, and some that are not.

    How likely a track shows itself as a detection has the density of Student's t with ``tail`` degrees
    of freedom, a Gaussian with heavier tails, since detections of half hidden objects are off by more
    than their noise. It is per box height, so that near and far objects compare, and it is lower the
    less is known of the track, so that one long unseen takes a detection only where no other claims it
    (global nearest neighbour, Blackman 1986).

    Args:
        expected: centre x, centre y, width, height of the tracks, (4, N), in pixels.
        variances: of ``expected`` and the detection's noise together, (4, N), in pixels squared.
        seen: centre x, centre y, width, height of the detections, (4, M), in pixels.
        tail: degrees of freedom.
        chance: log density, up to the same constant, of a detection that is not the track's.
    """
    heights = np.maximum(expected[3], 1.0)
    # The gain of a perfect hit.
    best = 0.5 * np.add.reduce(np.log(heights * heights / variances)) - chance
    # No pair gains anything that is off by more along one axis alone.
    farthest = tail * np.expm1(np.maximum(best, 0.0) * (2.0 / (tail + 4.0)))
    reach = np.sqrt(farthest * variances[0])
    tracks, detections = (np.abs(expected[0][:, None] - seen[0]) < reach[:, None]).nonzero()
    off = seen[:, detections] - expected[:, tracks]
    squares = np.add.reduce(off * off / variances[:, tracks])
    gains = best[tracks] - 0.5 * (tail + 4.0) * np.log1p(squares / tail)
    return Pairs(tracks, detections, gains)


def match(pairs: Pairs) -> tuple[Indices, Indices]:
    """The one-to-one choice (tracks, detections) of greatest total gain, from pairs that gain something."""
    count = len(pairs.gains)
    if len(set(pairs.tracks.tolist())) == count == len(set(pairs.detections.tolist())):
        return pairs.tracks, pairs.detections
    # Where neither has another choice there is nothing to weigh, and what is left is small.
    alone = np.bincount(pairs.tracks)[pairs.tracks] == 1
    alone &= np.bincount(pairs.detections)[pairs.detections] == 1
    contested = pairs.where(~alone)
    tracks, rows = _numbered(contested.tracks)
    detections, columns = _numbered(contested.detections)
    gains = np.zeros((len(tracks), len(detections)))
    gains[rows, columns] = contested.gains
    rows, columns = linear_sum_assignment(gains, maximize=True)
    real = gains[rows, columns] > 0.0
    return (
        np.concatenate((pairs.tracks[alone], tracks[rows[real]])),
        np.concatenate((pairs.detections[alone], detections[columns[real]])),
    )


def _numbered(values: Indices) -> tuple[Indices, Indices]:
    """The different values, and for each value which of them it is: np.unique, without sorting."""
    there = np.bincount(values) > 0
    return there.nonzero()[0], (np.cumsum(there) - 1)[values]


def overlaps(first: Array, second: Array) -> Array:
    """Intersection over union (N, M) of boxes xyxy (N, 4) and (M, 4)."""
    shared = _shared(first, second)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    ious: Array = shared / (areas[0][:, None] + areas[1] - shared)
    return ious


def covered(boxes: Array, by: Array) -> Array:
    """How much of each box xyxy (N, 4) lies in each of others (M, 4): (N, M), 0 to 1."""
    inside: Array = _shared(boxes, by) / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)[:, None]
    return inside


def _shared(first: Array, second: Array) -> Array:
    low = np.maximum(first[:, None, :2], second[:, :2])
    high = np.minimum(first[:, None, 2:], second[:, 2:])
    shared: Array = np.maximum(high - low, 0.0).prod(axis=2)
    return shared
