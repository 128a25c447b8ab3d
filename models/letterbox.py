"""The one resize rule, shared by training, export, evaluation and the live app.

A picture is scaled by one factor to fit the input and placed at its *top left*; the rest is
filled with 114 (as YOLOX does, arXiv 2107.08430). Top-left placement leaves a single number,
``scale``, between source pixels and input pixels.

Knows nothing of torch, models or video.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

PAD_VALUE = 114


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Geometry of one resize. ``scale`` is input pixels per source pixel, on both axes."""

    scale: float
    content_width: int
    content_height: int
    input_width: int
    input_height: int

    @classmethod
    def fit(cls, source_width: int, source_height: int, input_width: int, input_height: int) -> Letterbox:
        """The geometry that fits a source picture into an input, keeping its aspect ratio."""
        scale = min(input_width / source_width, input_height / source_height)
        return cls(
            scale=scale,
            content_width=min(input_width, max(1, round(source_width * scale))),
            content_height=min(input_height, max(1, round(source_height * scale))),
            input_width=input_width,
            input_height=input_height,
        )

    def apply(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Resize and pad a uint8 (height, width, 3) picture to (input_height, input_width, 3)."""
        canvas = np.full((self.input_height, self.input_width, 3), PAD_VALUE, np.uint8)
        size = (self.content_width, self.content_height)
        interpolation = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR
        canvas[: self.content_height, : self.content_width] = cv2.resize(
            rgb, size, interpolation=interpolation
        )
        return canvas

    def to_source(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map xyxy boxes float32 (..., 4) from input pixels to source pixels."""
        return boxes / np.float32(self.scale)

    def to_input(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map xyxy boxes float32 (..., 4) from source pixels to input pixels."""
        return boxes * np.float32(self.scale)
