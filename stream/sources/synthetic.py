"""A synthetic camera: a moving picture of any size and rate, with its frame number as a barcode.

It exists so that a receiver can prove which frame it got (``stream/barcode.py``), and as a camera that
is always there. It knows nothing of codecs: its pictures are made, not decoded.
"""

from __future__ import annotations

import re
import threading
import time
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from av import VideoFrame
from av.video.plane import VideoPlane

from stream import barcode
from stream.errors import UsageError
from stream.frames import Frame
from stream.sources.base import Listener, SourceInfo, SourceOptions
from stream.sources.clock import Ending

_PATTERN = re.compile(r"synthetic:(\d+)x(\d+)@(\d+(?:\.\d+)?)")
_SCROLL = 4  # pixels a frame, even for the sake of the half-size chroma planes
_MAX_SIDE, _MAX_RATE = 8192, 1000

Plane = npt.NDArray[np.uint8]


class SyntheticSource:
    """Pictures by the clock. A reader that is late misses frames, as with a real camera.

    With ``pace="lossless"`` every frame comes, as fast as it is taken. Either way a frame's barcode is
    its index.

    Args:
        url: ``synthetic:WIDTHxHEIGHT@FPS``, e.g. ``synthetic:1280x720@30``.
    """

    bad_packets = 0  # nothing is decoded
    forwards = "this camera's pictures are made here, not sent by a camera, so there is nothing to pass on"

    def __init__(self, url: str, options: SourceOptions, stop: threading.Event | None = None) -> None:
        width, height, self._rate = parse_synthetic(url)
        self.info = SourceInfo(width, height, "raw", float(self._rate), live=True, backend="synthetic")
        self.listener: Listener | None = None
        self._lossless = options.pace == "lossless"
        self._background = [_waves(*size, phase) for size, phase in _plane_sizes(width, height)]
        self._ending = Ending(stop)
        self._start: float | None = None
        self._next = 0

    def read(self) -> Frame | None:
        index = self._next if self._lossless else self._wait()
        if self._ending.is_set():
            return None
        self._next = index + 1
        return Frame(self.picture(index), index, float(index / self._rate), time.monotonic())

    def close(self) -> None:
        self._ending.set()

    def _wait(self) -> int:
        """Wait for the next frame's moment; the index of the newest one that is due by then."""
        now = time.monotonic()
        if self._start is None:
            self._start = now
        due_now = int((now - self._start) * float(self._rate))
        if due_now < self._next:
            self._ending.wait(self._start + float(self._next / self._rate) - now)
        return max(due_now, self._next)

    def picture(self, index: int) -> VideoFrame:
        """Frame ``index``, yuv420p, newly made."""
        picture = VideoFrame(self.info.width, self.info.height, "yuv420p")
        for number, (plane, background) in enumerate(zip(picture.planes, self._background, strict=True)):
            pixels = _pixels(plane)
            width = pixels.shape[1]
            shift = index * (_SCROLL if number == 0 else _SCROLL // 2) % width
            pixels[:] = background[:, shift : shift + width]
            if number == 0:
                barcode.draw(pixels, index)
        picture.pts = index
        picture.time_base = 1 / self._rate
        return picture


def parse_synthetic(url: str) -> tuple[int, int, Fraction]:
    match = _PATTERN.fullmatch(url)
    if match is None:
        raise UsageError(f"{url!r}: expected synthetic:WIDTHxHEIGHT@FPS, for example synthetic:1280x720@30")
    width, height, rate = int(match[1]), int(match[2]), Fraction(match[3])
    if not (
        barcode.MIN_WIDTH <= width <= _MAX_SIDE
        and barcode.MIN_HEIGHT <= height <= _MAX_SIDE
        and 0 < rate <= _MAX_RATE
    ):
        raise UsageError(
            f"{url!r}: expected a size from {barcode.MIN_WIDTH}x{barcode.MIN_HEIGHT} to "
            f"{_MAX_SIDE}x{_MAX_SIDE} and up to {_MAX_RATE} frames a second"
        )
    return width, height, rate


def _plane_sizes(width: int, height: int) -> list[tuple[tuple[int, int], float]]:
    """((width, height), phase) of the Y, U and V planes."""
    chroma = ((width + 1) // 2, (height + 1) // 2)
    return [((width, height), 0.0), (chroma, 1.0), (chroma, 2.0)]


def _waves(width: int, height: int, phase: float) -> Plane:
    """Smooth waves that repeat after ``width``, twice as wide as the plane: (height, 2 * width)."""
    x = np.arange(2 * width) / width
    y = np.arange(height)[:, None] / height
    waves = np.sin(2 * np.pi * (3 * x + y) + phase) + np.sin(2 * np.pi * (x - 2 * y) + 2 * phase)
    return (126 + 40 * waves).astype(np.uint8)


def _pixels(plane: VideoPlane) -> Plane:
    """A plane's pixels (height, width), writable, without its padding."""
    rows: Plane = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]
