"""``Viewer``: the bounded queue between a hub and one connection.

Lives on the event loop's thread. Knows nothing of encoders, packets or aiortc.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from stream.encode import EncodedUnit

QUEUE_UNITS = 4


class Viewer:
    """What one viewer still has to be sent.

    It starts with a keyframe. When it cannot keep up everything waiting is dropped and it starts
    again with the next keyframe: a P-picture without the one before it is worse than a short freeze.

    ``wake`` is called after each unit that was queued; the sender then takes what it can send.
    ``ended`` is called when the hub will give nothing more, with the reason.
    """

    def __init__(self, limit: int = QUEUE_UNITS) -> None:
        self.wake: Callable[[], None] = _nothing
        self.ended: Callable[[str], None] = _ignore
        self.request_keyframe: Callable[[], None] = _nothing
        self.dropped = 0
        self._limit = limit
        self._queue: deque[EncodedUnit] = deque()
        self._needs_keyframe = True
        self._held = False

    def offer(self, unit: EncodedUnit) -> None:
        """Queue a unit, or drop it if nothing can be done with it."""
        if self._held or (self._needs_keyframe and not unit.keyframe):
            self.dropped += 1
            return
        self._needs_keyframe = False
        if len(self._queue) >= self._limit:
            self.resync()
            if not unit.keyframe:
                self.dropped += 1
                return
            self._needs_keyframe = False
        self._queue.append(unit)
        self.wake()

    def take(self) -> EncodedUnit | None:
        """The next unit in order; None if nothing waits."""
        return self._queue.popleft() if self._queue else None

    def hold(self, held: bool) -> None:
        """While held (the viewer has gone silent) everything is dropped; afterwards it starts again."""
        if self._held and not held:
            self.request_keyframe()
        elif held and not self._held:
            self.dropped += len(self._queue)
            self._queue.clear()
            self._needs_keyframe = True
        self._held = held

    def resync(self) -> None:
        """Drop what waits, ask for a keyframe and start again with it."""
        self.dropped += len(self._queue)
        self._queue.clear()
        self._needs_keyframe = True
        self.request_keyframe()


def _nothing() -> None:
    """A viewer that has not been joined to anything yet."""


def _ignore(reason: str) -> None:
    """A viewer whose connection does not care why its hub ended."""
