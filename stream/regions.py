"""Regions of interest: the polygons of a camera's picture that its detector may see.

The model is shown their bounding rectangle alone, so a small region is seen in more detail than it has in
the whole picture; in it, what lies in none of them is covered with the letterbox's grey. Knows nothing
of models or cameras.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from av import VideoFrame

from export.artifact import PAD_VALUE
from stream.planes import blank_like, views

Pixels = npt.NDArray[np.uint8]
Polygon = Sequence[tuple[float, float]]

_LEAST_SIDE = 16
"""Pixels of the smallest rectangle that is shown; one by one pixel, say, is no picture."""


@dataclass(frozen=True, slots=True)
class View:
    """What a detector is shown of a frame: a part whose top left corner is at ``left``, ``top`` of it."""

    picture: VideoFrame
    left: int = 0
    top: int = 0
    regions: Regions | None = None


class Regions:
    """The regions of one camera.

    Args:
        polygons: corners (x, y), in pixels of the picture. What lies outside the picture counts for nothing.
    """

    def __init__(self, polygons: Sequence[Polygon]) -> None:
        self._polygons = [np.array(polygon, np.float64) for polygon in polygons]
        self._newest_cover: tuple[tuple[int, ...], Pixels, Pixels] | None = None

    def view(self, picture: VideoFrame) -> View:
        """The part of a 4:2:0 picture that holds them, on even pixels, at least 16 x 16; copied."""
        corners = np.concatenate(self._polygons)
        left, right = _span(corners[:, 0].min(), corners[:, 0].max(), picture.width)
        top, bottom = _span(corners[:, 1].min(), corners[:, 1].max(), picture.height)
        if (right - left, bottom - top) == (picture.width, picture.height):
            return View(picture, regions=self)
        part = blank_like(picture, right - left, bottom - top)
        for target, source, shift in zip(views(part), views(picture), (0, 1, 1), strict=True):
            rows, columns = target.shape
            y, x = top >> shift, left >> shift
            np.copyto(target, source[y : y + rows, x : x + columns])
        return View(part, left, top, self)

    def hide(self, view: View, image: Pixels) -> None:
        """Cover what lies in none of them.

        Args:
            view: one of ``self.view``.
            image: uint8 (height, width, 3), ``view.picture`` at another size; written to.
        """
        height, width = image.shape[:2]
        sizes = view.left, view.top, view.picture.width, view.picture.height, width, height
        newest = self._newest_cover  # read once: threads share it
        if newest is None or newest[0] != sizes:
            newest = self._newest_cover = (sizes, *self._cover(*sizes))
        _, grey, outside = newest
        image[:] = cv2.copyTo(grey, outside, dst=np.ascontiguousarray(image))

    def _cover(
        self, left: int, top: int, part_width: int, part_height: int, width: int, height: int
    ) -> tuple[Pixels, Pixels]:
        """Grey (height, width, 3), and where it goes: uint8 (height, width), 255 outside of all polygons."""
        outside = np.full((height, width), 255, np.uint8)
        scale = np.array([width / part_width, height / part_height])
        for polygon in self._polygons:
            # Centres of pixels lie at halves in coordinates of the picture, at whole numbers in OpenCV's.
            corners = (polygon - (left, top)) * scale - 0.5
            shift = 4  # bits after the point
            cv2.fillPoly(outside, [np.round(corners * (1 << shift)).astype(np.int32)], 0, shift=shift)
        return np.full((height, width, 3), PAD_VALUE, np.uint8), outside


def _span(low: float, high: float, side: int) -> tuple[int, int]:
    """The even pixels from ``low`` to ``high`` that a side of that length has, ``_LEAST_SIDE`` at least."""
    even_side = side - side % 2
    least = min(_LEAST_SIDE, even_side)
    start = min(int(low) // 2 * 2, even_side - least)
    end = min(-(-int(np.ceil(high)) // 2) * 2, even_side)
    end = max(end, start + least)
    return (start, side) if end >= even_side else (start, end)
