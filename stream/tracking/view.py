"""What a picture tells a tracker besides its detections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from av import VideoFrame

from stream.planes import views


@dataclass(frozen=True, slots=True)
class View:
    """Of the picture that was detected; sizes are in its pixels."""

    width: int
    height: int
    luma: npt.NDArray[np.uint8] | None = None
    """uint8 (height, width), from which it is seen how the camera moves; None: it stands still."""

    @classmethod
    def of(cls, picture: VideoFrame) -> Self:
        """A view over the picture's own memory."""
        return cls(picture.width, picture.height, views(picture)[0])
