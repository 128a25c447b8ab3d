"""A picture of the input size with what is known of it. Knows nothing of files or tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatBoxes = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]
Colours = tuple[float, float, float]
"""Shift of the hue as a part of the full circle, factors of saturation and of brightness."""

AS_THEY_ARE: Colours = 0.0, 1.0, 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture of the input size; boxes are xyxy in input pixels."""

    image: Picture
    """uint8 RGB (input_height, input_width, 3)."""
    boxes: FloatBoxes
    """float32 (N, 4)."""
    classes: npt.NDArray[np.int64]
    """int64 (N,)."""
    ignored: FloatBoxes
    """float32 (K, 4): crowds and cut-off objects, where nothing is right or wrong."""
    partial: FloatBoxes
    """float32 (P, 4): areas where objects without a box may be."""
    proposals: FloatBoxes
    """float32 (R, 4), best first: those of the pictures, as far as they are still to be seen."""
    colours: Colours = AS_THEY_ARE
    """What is still to be done to the picture's."""
