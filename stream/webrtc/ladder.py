"""``Ladder``: one viewer's place among a camera's renditions.

It starts with what was asked for, goes down where the viewer's network cannot carry it, at the end to
keyframes alone, and comes back when it can. Lives on the event loop. Knows nothing of RTP or HTTP.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import replace
from math import inf
from time import monotonic
from typing import Protocol

from stream.h264 import Profile
from stream.webrtc.congestion import Congestion
from stream.webrtc.hub import Hub
from stream.webrtc.rendition import Rendition
from stream.webrtc.source_hub import SourceHub
from stream.webrtc.viewer import Viewer

log = logging.getLogger(__name__)

# What is sent is measured over this; a keyframe must not look like a flood.
RATE_SPAN_S = 2.0
# Of the lowest rendition; more than this is still a stream, if one with losses that are made good.
TOO_LITTLE = 0.6
# Who gets keyframes alone gets one so often; those who share its encoder pay for it with finer pictures.
KEYFRAME_EVERY_S = 1.0
_MOST_SAMPLES = 256


class Watchable(Protocol):
    """What is needed of a camera."""

    def hub(self, rendition: Rendition) -> Hub: ...

    def source_hub(self) -> SourceHub:
        """Raises: SignallingError: 406 or 503, its packets cannot be passed on, or not yet."""
        ...

    def lower(self, rendition: Rendition) -> Rendition | None: ...


class Ladder:
    """Joins ``viewer`` to the hub that suits it.

    All but ``leave`` raise RuntimeError or SignallingError where the camera has been closed.

    Raises:
        SignallingError: 406 or 503, as the camera's ``source_hub``.
    """

    def __init__(self, camera: Watchable, asked: Rendition, viewer: Viewer) -> None:
        self.viewer = viewer
        self._camera = camera
        self._source = camera.source_hub() if asked.source else None
        self._hub = self._hub_of(asked)
        self._asked = self._hub.rendition
        self._congestion = Congestion(monotonic())
        self._keyframe_at = -inf
        self._sent: deque[tuple[float, int]] = deque(maxlen=_MOST_SAMPLES)

    @property
    def rendition(self) -> Rendition:
        """What the viewer gets now."""
        return self._hub.rendition

    @property
    def profile(self) -> Profile:
        """The most of H.264 that the viewer has to decode."""
        return Profile.BASELINE if self._source is None else self._source.profile

    def join(self) -> None:
        self._hub.join(self.viewer)

    def leave(self) -> None:
        self._hub.leave(self.viewer)

    def ask(self, height: int | None) -> None:
        """The viewer can now show so many pixels of height; None: all there are."""
        if self._asked.source:
            return
        before, self._asked = self._asked, self._camera.hub(replace(self._asked, height=height)).rendition
        if self.rendition == before or _height(self._asked) < _height(self.rendition):
            self._move(self._camera.hub(self._asked))

    def report(self, lost: int, highest: int, round_trip_s: float | None) -> None:
        """Take a receiver report: packets lost and highest sequence number, round trip in seconds (None: not told)."""
        self._congestion.report(monotonic(), lost, highest, round_trip_s)

    def estimate(self, bits_per_s: int, octets_sent: int) -> None:
        """Take the receiver's estimate of what it can get; ``octets_sent`` is the total so far."""
        now = monotonic()
        self._sent.append((now, octets_sent))
        while now - self._sent[0][0] > RATE_SPAN_S and len(self._sent) > 2:
            self._sent.popleft()
        since, before = self._sent[0]
        if octets_sent > before:
            self._congestion.estimate(bits_per_s * (now - since) / (8 * (octets_sent - before)))

    def look_after(self) -> None:
        """Step down or up where it is time to; call it about once a second, and after a report."""
        now = monotonic()
        carried = self._congestion.must_lower(now)
        if carried is not None:
            self._step_down(carried)
        elif (self.viewer.keyframes_only or self.rendition != self._asked) and self._congestion.may_raise(
            now
        ):
            self._step_up()
        if self.viewer.keyframes_only and now - self._keyframe_at >= KEYFRAME_EVERY_S:
            self._keyframe_at = now
            self.viewer.request_keyframe()

    def _step_down(self, carried: float) -> None:
        """To the first rendition below that takes only that share of the bits, or the lowest there is."""
        bitrate = carried * self._hub.bitrate
        chosen, below = None, self._camera.lower(self.rendition)
        while below is not None:
            chosen = self._camera.hub(below)
            below = self._camera.lower(below) if chosen.bitrate > bitrate else None
        if chosen is not None:
            self._move(chosen)
        elif carried < TOO_LITTLE:
            self.viewer.only_keyframes(True)

    def _step_up(self) -> None:
        if self.viewer.keyframes_only:
            self.viewer.only_keyframes(False)
            return
        above = self._asked
        while (below := self._camera.lower(above)) not in (None, self.rendition):
            above = below
        self._move(self._hub_of(above if below is not None else self._asked))

    def _hub_of(self, rendition: Rendition) -> Hub | SourceHub:
        own = self._source if rendition.source else None
        return self._camera.hub(rendition) if own is None else own

    def _move(self, hub: Hub | SourceHub) -> None:
        if hub is self._hub:
            return
        log.info(
            "camera %s: a viewer goes from %s to %s", hub.name, _words(self.rendition), _words(hub.rendition)
        )
        watching = self._hub.leave(self.viewer)
        self._hub = hub
        if watching:
            self.viewer.move()
            hub.join(self.viewer)


def _words(rendition: Rendition) -> str:
    if rendition.source:
        return "the camera's own"
    return "full height" if rendition.height is None else f"{rendition.height} lines"


def _height(rendition: Rendition) -> float:
    return inf if rendition.height is None else rendition.height
