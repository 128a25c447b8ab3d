"""What travels through the pipeline: ``Frame``, ``AccessUnit``, ``Detections``, ``Tracks``.

All are immutable and are validated once, where they are made from outside data. Boxes are xyxy
in *source* pixels. Times are seconds: ``time_s`` is the stream's clock, ``captured_at`` is
``time.monotonic()`` when the frame left the decoder.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from typing import Self

import numpy as np
import numpy.typing as npt
from av import VideoFrame

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture.

    ``picture`` is the decoder's own yuv420p buffer and is never written to. ``index`` counts the
    source's frames from 0; a gap is a drop. ``name`` is that of the picture's file, where it has its own.
    """

    picture: VideoFrame
    index: int
    time_s: float
    captured_at: float
    name: str = ""


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """One picture as the camera compressed it: H.264 in Annex-B form, of ``width`` x ``height`` pixels.

    A ``keyframe`` is an IDR picture with its parameter sets before it: decoding can start there.
    """

    data: bytes
    keyframe: bool
    width: int
    height: int
    time_s: float
    captured_at: float


@dataclass(frozen=True, slots=True)
class Detections:
    """What a detector saw in one frame. Empty is ``boxes`` of shape (0, 4)."""

    boxes: Floats  # (N, 4) xyxy, source pixels
    scores: Floats  # (N,) 0-1
    classes: Ints  # (N,) index into names
    names: tuple[str, ...] = ()  # the model's classes: another model may come while cameras run

    def __post_init__(self) -> None:
        count = len(self.scores)
        if self.boxes.shape != (count, 4) or self.scores.shape != (count,) or self.classes.shape != (count,):
            raise ValueError(
                f"boxes {self.boxes.shape}, scores {self.scores.shape}, classes {self.classes.shape}: "
                "expected (N, 4), (N,), (N,)"
            )

    def __len__(self) -> int:
        return len(self.scores)

    def shifted(self, left: int, top: int) -> Detections:
        """The same in a picture of which theirs is a part, that many pixels from its top left corner."""
        if not left and not top:
            return self
        return replace(self, boxes=self.boxes + np.array([left, top, left, top], np.float32))

    @classmethod
    def empty(cls) -> Self:
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


class TrackState(IntEnum):
    """In a track's life."""

    TENTATIVE = 0
    """Seen, but too little to be shown."""
    CONFIRMED = 1
    """Seen in this frame."""
    COASTING = 2
    """Not seen in this frame, shown where it should be."""
    LOST = 3
    """Unseen for so long that it is not shown; known again where it comes back."""


@dataclass(frozen=True, slots=True)
class Tracks:
    """Detections with an identity over time. ``ids`` belong to one camera and are never reused."""

    boxes: Floats  # (N, 4) xyxy, source pixels
    scores: Floats  # (N,) 0-1, of the last detection
    classes: Ints  # (N,)
    ids: Ints  # (N,)
    ages_s: Floats  # (N,) seconds since first seen
    coasting: Bools  # (N,) predicted, not seen in this frame
    names: tuple[str, ...] = ()  # of the model whose classes these are

    def __len__(self) -> int:
        return len(self.ids)

    def scaled(self, across: float, down: float) -> Tracks:
        """The same in a picture that is ``across`` times as wide and ``down`` times as high."""
        return replace(self, boxes=self.boxes * np.array([across, down] * 2, np.float32))

    @classmethod
    def empty(cls) -> Self:
        floats, ints = np.zeros(0, np.float32), np.zeros(0, np.int64)
        return cls(np.zeros((0, 4), np.float32), floats, ints, ints, floats, np.zeros(0, np.bool_))


def class_name(names: Sequence[str], class_index: int) -> str:
    """The name of a class; one that a model gives beyond its names goes by its number."""
    return names[class_index] if 0 <= class_index < len(names) else f"class {class_index}"


@lru_cache(maxsize=16)
def names_key(names: tuple[str, ...]) -> int:
    """32 bits by which data tell whose classes they count in: CRC-32 of the names, a line each."""
    return zlib.crc32("\n".join(names).encode())
