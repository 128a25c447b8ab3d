"""Viewers for benchmarks: they take every unit at once and send it nowhere."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep

from stream.encode import EncodedUnit
from stream.errors import SignallingError
from stream.webrtc.hub import Hub
from stream.webrtc.rendition import Rendition
from stream.webrtc.source_hub import SourceHub
from stream.webrtc.viewer import Viewer

_KEPT_CAPTURES = 10_000


class Drain(Viewer):
    """``age_s`` is capture to encoded, of the newest unit."""

    age_s = 0.0

    def offer(self, unit: EncodedUnit) -> None:
        self.age_s = monotonic() - unit.captured_at


class Recorder(Viewer):
    """It remembers when each picture was captured: monotonic seconds by RTP timestamp."""

    def __init__(self) -> None:
        super().__init__()
        self.captured_at: OrderedDict[int, float] = OrderedDict()

    def offer(self, unit: EncodedUnit) -> None:
        self.captured_at[unit.timestamp % 2**32] = unit.captured_at
        if len(self.captured_at) > _KEPT_CAPTURES:
            self.captured_at.popitem(last=False)


class OneHub:
    """A camera that has one rendition, whatever is asked of it; nothing is drawn on its pictures."""

    def __init__(self, name: str, bitrate: int, rendition: Rendition = Rendition("h264")) -> None:  # noqa: B008
        self.only = Hub(name, rendition, lambda picture, tracks: picture, bitrate=bitrate)

    def hub(self, rendition: Rendition) -> Hub:
        return self.only

    def source_hub(self) -> SourceHub:
        raise SignallingError("a benchmark's pictures come from no camera; leave out rendition=source", 406)

    def lower(self, rendition: Rendition) -> None:
        return None


@contextmanager
def watched(hub: Hub, viewer: Viewer) -> Iterator[None]:
    """``viewer`` joined to ``hub``, on an event loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="loop", daemon=True)
    thread.start()
    loop.call_soon_threadsafe(hub.join, viewer)
    wait_for(lambda: hub.viewers == 1)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(hub.leave, viewer)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        sleep(0.01)
