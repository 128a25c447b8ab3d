"""A hub's pictures with a barcode, a viewer that keeps what it gets, and waiting with a limit."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import av
import numpy as np

from stream import barcode
from stream.encode import Codec, EncodedUnit
from stream.frames import Frame, Tracks
from stream.webrtc.hub import Hub
from stream.webrtc.rendition import Rendition
from stream.webrtc.viewer import Viewer
from tests.stream.test_encode import Decoder, flat, planes_of

WIDTH, HEIGHT = 320, 180


def frame(index: int, time_s: float | None = None, age_s: float = 0.0) -> Frame:
    """A picture that carries its index as a barcode."""
    picture = flat(WIDTH, HEIGHT, 100)
    barcode.draw(planes_of(picture)[0], index)
    return Frame(picture, index, index / 30 if time_s is None else time_s, time.monotonic() - age_s)


class Draw:
    """Draws nothing, and notes on which threads it was asked to."""

    def __init__(self) -> None:
        self.threads: list[str] = []

    def __call__(self, picture: av.VideoFrame, tracks: Tracks) -> av.VideoFrame:
        self.threads.append(threading.current_thread().name)
        return picture


class Collector(Viewer):
    """A viewer that takes everything at once."""

    def __init__(self) -> None:
        super().__init__()
        self.units: list[EncodedUnit] = []
        self.end_reason: str | None = None
        self.wake = self._take_all
        self.ended = self._note_end

    def indices(self, codec: Codec = "h264") -> list[int | None]:
        """The barcodes of all pictures received, decoded from the first."""
        decoder = Decoder(codec)
        return [barcode.read(np.ascontiguousarray(planes_of(decoder.decode(unit))[0])) for unit in self.units]

    def _take_all(self) -> None:
        while (unit := self.take()) is not None:
            self.units.append(unit)

    def _note_end(self, reason: str) -> None:
        self.end_reason = reason


def make_hub(
    draw: Callable[[av.VideoFrame, Tracks], av.VideoFrame] | None = None, lossless: bool = False
) -> Hub:
    return Hub("door", Rendition("h264"), draw or Draw(), bitrate=500_000, lossless=lossless)


def encoder_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "encode-door"]


async def until(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


async def show(hub: Hub, first: int, count: int, watcher: Collector) -> None:
    """Show frames one by one, each after the one before was received."""
    for index in range(first, first + count):
        received = len(watcher.units)
        hub.show(frame(index), Tracks.empty())
        await until(lambda received=received: len(watcher.units) > received)
