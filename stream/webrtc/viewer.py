"""``Viewer``: the bounded queue between a hub and one connection.

Lives on the event loop's thread. Knows nothing of encoders, packets or aiortc.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from stream.encode import CLOCK_HZ, EncodedUnit

QUEUE_UNITS = 4


@dataclass(slots=True)
class Tally:
    """Units (and octets of payload) that viewers' senders took, and units that they were never sent."""

    units: int = 0
    bytes: int = 0
    dropped: int = 0


class Viewer:
    """What one viewer still has to be sent.

    It starts with a keyframe. When it cannot keep up everything waiting is dropped and it starts
    again with the next keyframe: a P-picture without the one before it is worse than a short freeze.

    While ``keyframes_only`` it is given nothing else: for a network that cannot carry a whole stream.

    ``wake`` is called after each unit that was queued; the sender then takes what it can send.
    ``tally`` counts for all viewers of one hub, which sets it, and outlives them.
    ``taken`` is called with each unit that the sender takes.
    ``ended`` is called when the hub will give nothing more, with the reason.
    """

    def __init__(self, limit: int = QUEUE_UNITS) -> None:
        self.wake: Callable[[], None] = _nothing
        self.taken: Callable[[EncodedUnit], None] = _ignore
        self.ended: Callable[[str], None] = _ignore
        self.request_keyframe: Callable[[], None] = _nothing
        self.keyframes_only = False
        self.dropped = 0
        self.tally = Tally()
        self._limit = limit
        self._queue: deque[EncodedUnit] = deque()
        self._needs_keyframe = True
        self._held = False
        self._newest: EncodedUnit | None = None
        self._moved = False
        self._shift = 0

    def offer(self, unit: EncodedUnit) -> None:
        """Queue a unit, or drop it if nothing can be done with it."""
        if self._held or ((self._needs_keyframe or self.keyframes_only) and not unit.keyframe):
            self._drop(1)
            return
        self._needs_keyframe = False
        if len(self._queue) >= self._limit:
            self.resync()
            if not unit.keyframe:
                self._drop(1)
                return
            self._needs_keyframe = False
        self._queue.append(self._continued(unit))
        self.wake()

    def take(self) -> EncodedUnit | None:
        """The next unit in order; None if nothing waits."""
        if not self._queue:
            return None
        unit = self._queue.popleft()
        self.tally.units += 1
        self.tally.bytes += unit.size
        self.taken(unit)
        return unit

    def only_keyframes(self, only: bool) -> None:
        """Give it keyframes alone, or, starting with the next, everything again."""
        if self.keyframes_only and not only:
            self._needs_keyframe = True
            self.request_keyframe()
        self.keyframes_only = only

    def move(self) -> None:
        """From now on units come from another hub: start with its keyframe; timestamps go on."""
        self._moved = self._needs_keyframe = True

    def hold(self, held: bool) -> None:
        """While held (the viewer has gone silent) everything is dropped; afterwards it starts again."""
        if self._held and not held:
            self.request_keyframe()
        elif held and not self._held:
            self._drop(len(self._queue))
            self._queue.clear()
            self._needs_keyframe = True
        self._held = held

    def resync(self) -> None:
        """Drop what waits, ask for a keyframe and start again with it."""
        self._drop(len(self._queue))
        self._queue.clear()
        self._needs_keyframe = True
        self.request_keyframe()

    def _drop(self, units: int) -> None:
        self.dropped += units
        self.tally.dropped += units

    def _continued(self, unit: EncodedUnit) -> EncodedUnit:
        """The unit with a timestamp that goes on from the last: each hub has a clock of its own."""
        if self._moved and self._newest is not None:
            elapsed = round((unit.captured_at - self._newest.captured_at) * CLOCK_HZ)
            self._shift = self._newest.timestamp + max(1, elapsed) - unit.timestamp
        self._moved = False
        if self._shift:
            unit = replace(unit, timestamp=unit.timestamp + self._shift)
        self._newest = unit
        return unit


def _nothing() -> None:
    """A viewer that has not been joined to anything yet."""


def _ignore(said: object) -> None:
    """A viewer whose connection does not care."""
