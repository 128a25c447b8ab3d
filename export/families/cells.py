"""The cells that a dense detector predicts from, and whether boxes lie where their cells are.

Row order, units and form of a dense output are nowhere declared. They show on any picture, also on
noise: the centre of a decoded box stays near its cell. Knows nothing of scores or of families.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from export.pixels import Array

Floats = npt.NDArray[np.float64]

STRIDE_SETS = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32))
"""Pixels between cells, level by level: the usual pyramid, with P6, with P2, and that of tiny models."""

_LEAST_CORRELATION = 0.8
_SLOPES = (0.75, 1.25)


def strides_of(rows: int, height: int, width: int, anchors: int = 1) -> tuple[int, ...] | None:
    """The strides whose cells in a picture of height x width make ``rows``, with ``anchors`` boxes a cell."""
    for strides in STRIDE_SETS:
        if height % strides[-1] or width % strides[-1]:
            continue
        if rows == anchors * sum((height // stride) * (width // stride) for stride in strides):
            return strides
    return None


def cell_centres(height: int, width: int, stride: int) -> Floats:
    """Centres (N, 2) x, y in pixels of one level's cells, row by row."""
    y, x = np.mgrid[: height // stride, : width // stride]
    return (np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64) + 0.5) * stride


def are_placed(points: Array, height: int, width: int, strides: tuple[int, ...], anchors: int = 1) -> bool:
    """Whether points (N, 2), x and y, are in pixels and follow their cells, in any of the usual row orders.

    Only the finest cells are looked at: there, a box strays least from its cell.
    """
    given: Floats = points.astype(np.float64)
    if not np.isfinite(given).all():
        return False
    finest = cell_centres(height, width, strides[0])
    count = anchors * len(finest)
    orders = [np.tile(finest, (anchors, 1)), finest.repeat(anchors, axis=0)][: min(anchors, 2)]
    return any(_follow(rows, centres) for centres in orders for rows in (given[:count], given[-count:]))


def are_centre_and_size(
    boxes: Array, height: int, width: int, strides: tuple[int, ...], anchors: int = 1
) -> bool:
    """Whether boxes (N, 4) are decoded: a centre in pixels that follows its cell, and a size that is one."""
    centres, sizes = boxes[:, :2], boxes[:, 2:].astype(np.float64)
    if not np.isfinite(sizes).all() or sizes.min() < 0:
        return False
    are_corners = are_placed(sizes, height, width, strides, anchors)
    return not are_corners and are_placed(centres, height, width, strides, anchors)


def _follow(points: Floats, centres: Floats) -> bool:
    for axis in range(2):
        given, wanted = points[:, axis], centres[:, axis]
        if given.std() < 1e-6 or wanted.std() == 0:
            return False
        correlation = float(np.corrcoef(given, wanted)[0, 1])
        slope = correlation * float(given.std() / wanted.std())
        if correlation < _LEAST_CORRELATION or not _SLOPES[0] <= slope <= _SLOPES[1]:
            return False
    return True
