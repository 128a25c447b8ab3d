"""A viewer for benchmarks: it takes every unit at once and sends it nowhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep

from stream.encode import EncodedUnit
from stream.webrtc.hub import Hub
from stream.webrtc.viewer import Viewer


class Drain(Viewer):
    """``age_s`` is capture to encoded, of the newest unit."""

    age_s = 0.0

    def offer(self, unit: EncodedUnit) -> None:
        self.age_s = monotonic() - unit.captured_at


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
