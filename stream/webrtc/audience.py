"""``Audience``: the viewers of one rendition of one camera, and what every hub does for them.

All but the counters belongs to the event loop. Knows nothing of where units come from.
"""

from __future__ import annotations

from time import monotonic

from stream.encode import EncodedUnit
from stream.histogram import AGE_BOUNDS_S, Histogram
from stream.webrtc.rendition import Rendition
from stream.webrtc.viewer import Tally, Viewer


class Audience:
    """Gives each unit to every viewer, and counts.

    ``dropped`` counts pictures that were not made into units, ``units``, ``keyframes`` and ``bytes`` what was
    given. ``publish_age_s`` is how old the newest unit that is no repeat was when it was given, ``publish_ages``
    how old all of them were; ``tally`` is what viewers' connections took of them.
    """

    def __init__(self, name: str, rendition: Rendition) -> None:
        self.name = name
        self.rendition = rendition
        self.dropped = self.units = self.keyframes = self.bytes = 0
        self.publish_age_s: float | None = None
        self.publish_ages = Histogram(AGE_BOUNDS_S)
        self.tally = Tally()
        self._viewers: list[Viewer] = []

    @property
    def viewers(self) -> int:
        return len(self._viewers)

    def leave(self, viewer: Viewer) -> bool:
        """Remove a viewer. False: it was not here, which is harmless."""
        joined = viewer in self._viewers
        if joined:
            self._viewers.remove(viewer)
        return joined

    def _give(self, unit: EncodedUnit) -> None:
        """One wake-up a picture, however many watch."""
        self.units += 1
        self.keyframes += unit.keyframe
        self.bytes += unit.size
        if not unit.repeat:
            self.publish_age_s = monotonic() - unit.captured_at
            self.publish_ages.observe(self.publish_age_s)
        for viewer in tuple(self._viewers):
            viewer.offer(unit)

    def _dismiss(self, reason: str) -> None:
        """No unit will come any more: end the viewers, so that nobody stares at a frozen picture."""
        viewers, self._viewers = self._viewers, []
        for viewer in viewers:
            viewer.ended(reason)
