"""Boxes in which some object may be, from the picture alone: what the first R-CNNs were given to judge.

Selective Search (Uijlings et al., IJCV 2013) and EdgeBoxes (Zitnick and Dollár, ECCV 2014), as OpenCV's
contributed modules have them, with two differences:

* OpenCV shuffles Selective Search's boxes with the C library's global random numbers, differently in every call.
  Here they are put in an order of their own, which is the same every time.
* EdgeBoxes was made for structured forests' edges, whose model is not packaged. Here the edges are gradient
  magnitudes, thinned, so texture counts for more than in the paper, and a short list holds fewer objects.

Knows nothing of torch, models or files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from models.letterbox import Letterbox

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

Method = Literal["selective-search", "edge-boxes"]

_SMOOTHING_PX = 2.0
"""With less, or with strengths relative to those around them, texture hides contours: recall was lower."""

_THINNING_PX = (-2, -1, 1, 2)
_LEAST_SIDE_PX = 8
_LEAST_AREA_PX = 200
_SEED = 2013


@dataclass(frozen=True, slots=True)
class ProposalRule:
    """Which boxes the host proposes to a model: written as ``selective-search:300``."""

    method: Method
    count: int

    @classmethod
    def parse(cls, said: str) -> ProposalRule:
        """Raises ValueError: not a method and a count."""
        method, _, count = said.partition(":")
        known: dict[str, Method] = {"selective-search": "selective-search", "edge-boxes": "edge-boxes"}
        if method not in known or not count.isdecimal() or int(count) == 0:
            raise ValueError(f"proposals {said!r}, expected METHOD:COUNT with one of {', '.join(known)}")
        return cls(known[method], int(count))

    def __str__(self) -> str:
        return f"{self.method}:{self.count}"

    def inside(self, image: Pixels, letterbox: Letterbox) -> Floats:
        """Proposals in a letterboxed picture, but not in its padding.

        Args:
            image: uint8 (input_height, input_width, 3), RGB.
            letterbox: how the picture came into it.

        Returns:
            float32 (count, 4) as of :func:`propose`, in input pixels.
        """
        content = image[: letterbox.content_height, : letterbox.content_width]
        return propose(content, self.method, self.count)


def propose(rgb: Pixels, method: Method, count: int) -> Floats:
    """Boxes that may hold an object, best first; the same for the same picture.

    Args:
        rgb: uint8 (H, W, 3).
        method: ``selective-search`` or ``edge-boxes``.
        count: how many; where fewer are found, the rest are rows of zeros.

    Returns:
        float32 (count, 4), xyxy in pixels of ``rgb``.
    """
    picture = np.ascontiguousarray(rgb)
    if min(picture.shape[:2]) < _LEAST_SIDE_PX:
        return np.zeros((count, 4), np.float32)
    found = _selective_search(picture) if method == "selective-search" else _edge_boxes(picture, count)
    boxes = np.zeros((count, 4), np.float32)
    boxes[: len(found)] = found[:count]
    return boxes


def _selective_search(rgb: Pixels) -> Floats:
    """Every region of the fast mode's hierarchies, large ones rather first; (N, 4)."""
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    search.switchToSelectiveSearchFast()
    xywh = np.asarray(search.process(), np.float32).reshape(-1, 4)
    boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)
    boxes = boxes[(xywh[:, 2:] >= _LEAST_SIDE_PX).all(1)]
    # The paper multiplies a region's place in its hierarchy, 1 for the whole, by a random number. OpenCV does not
    # tell the place; the order of size stands for it.
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    boxes = boxes[np.lexsort((*boxes.T, -areas))]
    places = np.arange(1, len(boxes) + 1) * np.random.default_rng(_SEED).random(len(boxes))
    return np.asarray(boxes[np.argsort(places, kind="stable")], np.float32)


def _edge_boxes(rgb: Pixels, count: int) -> Floats:
    """The windows that enclose most contours that do not cross their border; (N, 4), best score first."""
    edges, normals = edge_map(rgb)
    finder = cv2.ximgproc.createEdgeBoxes(maxBoxes=count, minBoxArea=_LEAST_AREA_PX)
    xywh = np.asarray(finder.getBoundingBoxes(edges, normals)[0], np.float32).reshape(-1, 4)
    xywh[:, :2] -= 1  # they are counted from 1
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)


def edge_map(rgb: Pixels) -> tuple[Floats, Floats]:
    """Thin edges of a picture.

    Args:
        rgb: uint8 (H, W, 3).

    Returns:
        Their strengths, 0 to about 1, and the directions across them, 0 to pi; float32 (H, W) both.
    """
    smooth = cv2.GaussianBlur(rgb, (0, 0), _SMOOTHING_PX).astype(np.float32) / 255
    gradients = np.stack([cv2.Sobel(smooth, cv2.CV_32F, dx, dy) for dx, dy in ((1, 0), (0, 1))])
    strongest = np.square(gradients).sum(0).argmax(-1)[None, ..., None]  # (1, H, W, 1): of the three channels
    across, down = np.take_along_axis(gradients, strongest, -1)[..., 0]  # (H, W) each
    normals = np.arctan2(down, across) % np.pi
    return _thinned(np.hypot(across, down), normals), normals


def _thinned(strength: Floats, normals: Floats) -> Floats:
    """``strength`` where nothing across the edge is stronger, else 0 (Canny's non-maximum suppression)."""
    height, width = strength.shape
    rows, columns = np.indices((height, width), dtype=np.float32)
    step_x, step_y = np.cos(normals), np.sin(normals)
    thin = strength.copy()
    for distance in _THINNING_PX:
        beside = cv2.remap(
            strength,
            columns + distance * step_x,
            rows + distance * step_y,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        thin[strength < beside] = 0
    return thin
