"""The resize rule, shared by training, export, evaluation and the live app.

A picture is scaled by one factor to fit the input and placed at its *top left*; the rest is
filled with 114 (as YOLOX does, arXiv 2107.08430). Top-left placement leaves nothing but a scale
between source pixels and input pixels. Strangers that were trained on pictures stretched to their
input (DETR's lineage) get that: ``stretch`` fills it, by a factor for each axis.

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
    """Geometry of one resize. ``scale_x`` and ``scale_y`` are input pixels per source pixel."""

    scale_x: float
    scale_y: float
    content_width: int
    content_height: int
    input_width: int
    input_height: int

    @classmethod
    def fit(cls, source_width: int, source_height: int, input_width: int, input_height: int) -> Letterbox:
        """The geometry that fits a source picture into an input, keeping its aspect ratio."""
        scale = min(input_width / source_width, input_height / source_height)
        return cls(
            scale_x=scale,
            scale_y=scale,
            content_width=min(input_width, max(1, round(source_width * scale))),
            content_height=min(input_height, max(1, round(source_height * scale))),
            input_width=input_width,
            input_height=input_height,
        )

    @classmethod
    def stretch(cls, source_width: int, source_height: int, input_width: int, input_height: int) -> Letterbox:
        """The geometry that fills an input with a source picture, whatever becomes of its aspect ratio."""
        scale_x, scale_y = input_width / source_width, input_height / source_height
        return cls(scale_x, scale_y, input_width, input_height, input_width, input_height)

    def apply(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Resize and pad a uint8 (height, width, 3) picture to (input_height, input_width, 3)."""
        canvas = np.full((self.input_height, self.input_width, 3), PAD_VALUE, np.uint8)
        size = (self.content_width, self.content_height)
        interpolation = cv2.INTER_AREA if min(self.scale_x, self.scale_y) < 1 else cv2.INTER_LINEAR
        canvas[: self.content_height, : self.content_width] = cv2.resize(
            rgb, size, interpolation=interpolation
        )
        return canvas

    def to_source(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map xyxy boxes float32 (..., 4) from input pixels to source pixels."""
        return boxes / self._scales

    def to_input(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map xyxy boxes float32 (..., 4) from source pixels to input pixels."""
        return boxes * self._scales

    @property
    def _scales(self) -> npt.NDArray[np.float32]:
        return np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y], np.float32)
