"""What one encoder of a camera makes, and which ones there may be. Knows nothing of hubs or viewers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from stream.encode import Codec

Boxes = Literal["drawn", "data"]
"""Whether a viewer's pictures have the boxes drawn on them, or carry them as data beside the picture."""

# A quarter of the pixels wants more than a quarter of the bits: small pictures hold more detail a pixel.
_BITS_BY_PIXELS = 0.75


@dataclass(frozen=True, slots=True)
class Rendition:
    """One way to show a camera; its viewers share one encoder.

    ``height`` is in pixels: higher pictures are shrunk to it, lower ones stay. None: as the camera's own.
    ``source``: the camera's own packets, which nobody encodes.
    """

    codec: Codec
    boxes: Boxes = "drawn"
    height: int | None = None
    source: bool = False

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of a picture of that size once it is shrunk: the same shape, even sides."""
        if self.height is None or height <= self.height:
            return width, height
        return max(2, 2 * round(width * self.height / height / 2)), self.height

    def bitrate(self, whole: int, width: int, height: int) -> int:
        """Bits a second, where pictures of width x height at full size get ``whole``."""
        shrunk_width, shrunk_height = self.size(width, height)
        share: float = (shrunk_width * shrunk_height / (width * height)) ** _BITS_BY_PIXELS
        return round(whole * share)


SOURCE = Rendition("h264", "data", source=True)


def offered(rendition: Rendition, heights: Sequence[int], picture_height: int | None) -> Rendition:
    """The rendition with the least of ``heights`` that is no lower than what it asks for.

    That is the camera's own height where none is, or where its pictures (None: unknown) are no higher.
    """
    wanted = rendition.height
    fitting = min((h for h in heights if wanted is not None and h >= wanted), default=None)
    if fitting is not None and picture_height is not None and fitting >= picture_height:
        fitting = None
    return replace(rendition, height=fitting)


def lower(rendition: Rendition, heights: Sequence[int], picture_height: int | None) -> Rendition | None:
    """The next rendition below, None where there is none. Below the camera's own packets: as high, encoded."""
    if rendition.source:
        return replace(rendition, source=False)
    present = [h for h in (rendition.height, picture_height) if h is not None]
    below = max((h for h in heights if present and h < min(present)), default=None)
    return None if below is None else replace(rendition, height=below)
