"""Annotated objects, each brought to the middle of a window of one size.

As in Dalal and Triggs' training data, every object gets the same height, keeps its shape, and has a
margin around it. Knows nothing of features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from models.errors import DataError
from models.lineage.hog import CELL
from models.lineage.mining import Scene

CONTEXT = 2 * CELL
"""Pixels around a cut-out window: its gradients, as in a picture, do not end at its edge."""


@dataclass(frozen=True, slots=True)
class Cutouts:
    """The objects of one class."""

    windows: Tensor
    """uint8 RGB (P, height + 2 CONTEXT, width + 2 CONTEXT, 3)."""
    aspects: Tensor
    """float32 (P,): width by height of each object."""


def cut_objects(
    scenes: Iterable[Scene], names: tuple[str, ...], height: int, width: int, margin: int, least_px: float
) -> list[Cutouts]:
    """The objects of every class of ``names``.

    Args:
        scenes: annotated pictures.
        names: the classes.
        height, width: of the window in pixels.
        margin: pixels in the window above and below the object.
        least_px: lower objects are left out.

    Raises:
        DataError: a class has no object that is high enough.
    """
    windows: list[list[Tensor]] = [[] for _ in names]
    aspects: list[list[float]] = [[] for _ in names]
    for scene in scenes:
        for box, class_ in zip(scene.boxes.tolist(), scene.classes.tolist(), strict=True):
            if box[3] - box[1] >= least_px:
                windows[class_].append(cut(scene.image, box, height, width, margin))
                aspects[class_].append((box[2] - box[0]) / (box[3] - box[1]))
    for name, cutouts in zip(names, windows, strict=True):
        if not cutouts:
            raise DataError(
                f"{name}: no box of it is at least {least_px:.0f} pixels high in the input; a larger input, or "
                f"a larger largest_scale, makes smaller objects do"
            )
    return [Cutouts(torch.stack(w), torch.tensor(a)) for w, a in zip(windows, aspects, strict=True)]


def cut(image: Tensor, box: list[float], height: int, width: int, margin: int) -> Tensor:
    """The window around a box (xyxy, pixels of ``image``), with context: uint8 (h, w, 3).

    Beyond the picture's edge its outermost pixels are repeated.
    """
    pixels = image.numpy()
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    scale = (height - 2 * margin) / (box[3] - box[1])
    while scale < 0.5:  # pixels would be skipped
        pixels = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        x, y, scale = x / 2, y / 2, scale * 2
    width, height = width + 2 * CONTEXT, height + 2 * CONTEXT
    # Coordinates are measured from the corner of the first pixel here, and from its centre in OpenCV.
    right = width / 2 - scale * x + (scale - 1) / 2
    down = height / 2 - scale * y + (scale - 1) / 2
    affine = np.array([[scale, 0, right], [0, scale, down]])
    return torch.from_numpy(cv2.warpAffine(pixels, affine, (width, height), borderMode=cv2.BORDER_REPLICATE))
