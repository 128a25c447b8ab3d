"""Anchors (prior or default boxes) of SSD's lineage: read from a file, and their layout made out.

Four numbers an anchor, in one of several layouts that no file names. What the numbers show decides:
corners are ordered, a centre and a size are not; x runs through its range once a row of cells, y once
a grid; pixels are beyond what is relative to the input. Knows nothing of models.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.pixels import Array
from export.signature import AdaptError

Floats = npt.NDArray[np.float32]

MOST_RELATIVE = 3.0
"""Anchors relative to the input stay below: larger ones are in pixels."""

_TIMES_BUSIER = 2.0


@dataclass(frozen=True, slots=True)
class Anchors:
    """N anchors, x before y, in input pixels; ``y_first`` and ``in_pixels`` tell how they were given."""

    centres: Floats  # (N, 2)
    sizes: Floats  # (N, 2) width, height
    y_first: bool
    in_pixels: bool = False


def read_anchors(path: Path) -> Floats:
    """Anchors float32 (N, 4) of a file: .npy, or text with four numbers a line, separated by commas.

    Raises:
        AdaptError: it cannot be read, or is not four finite numbers an anchor.
    """
    try:
        values = np.load(path, allow_pickle=False) if path.suffix == ".npy" else _text(path)
        anchors = np.asarray(values, np.float32)
    except (OSError, ValueError, TypeError, EOFError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AdaptError(
            f"--anchors {path}: cannot be read ({line}); expected a .npy file or lines of four numbers "
            "with commas"
        ) from error
    if anchors.ndim == 3 and len(anchors) == 1:
        anchors = anchors[0]
    if anchors.ndim != 2 or anchors.shape[1] != 4 or not len(anchors) or not np.isfinite(anchors).all():
        raise AdaptError(
            f"--anchors {path}: holds an array of shape {anchors.shape}, expected (N, 4) finite numbers"
        )
    return anchors


def _text(path: Path) -> Array:
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    return np.array([[float(number) for number in line.split(",")] for line in lines])


def are_corners(boxes: Array) -> bool:
    """Whether every one of boxes (N, 4) ends after it begins, in both directions."""
    numbers = boxes.astype(np.float64)
    return bool((numbers[:, 2:] >= numbers[:, :2]).all())


def make_out(values: Floats, input_height: int, input_width: int) -> list[Anchors]:
    """The ways to take anchors float32 (N, 4): one, or two where nothing tells x from y."""
    numbers = values.astype(np.float64)
    in_pixels = bool(np.abs(numbers).max() > MOST_RELATIVE)
    first, second = numbers[:, :2], numbers[:, 2:]
    if are_corners(numbers):
        first, second = (first + second) / 2, second - first
    travelled = np.abs(np.diff(first, axis=0)).sum(axis=0)
    orders = [False, True]
    if travelled[0] > _TIMES_BUSIER * travelled[1]:
        orders = [False]
    elif travelled[1] > _TIMES_BUSIER * travelled[0]:
        orders = [True]
    scale = np.array([1, 1] if in_pixels else [input_width, input_height], np.float64)
    return [
        Anchors(
            centres=((first[:, ::-1] if y_first else first) * scale).astype(np.float32),
            sizes=((second[:, ::-1] if y_first else second) * scale).astype(np.float32),
            y_first=y_first,
            in_pixels=in_pixels,
        )
        for y_first in orders
    ]
