"""``SourceHub``: passes a camera's own H.264 on to its viewers. Nothing is drawn or encoded for it.

The thread that reads the camera calls ``forward``; the event loop's thread joins and removes viewers.
A camera makes keyframes when it likes, perhaps seconds apart. Until the next one a viewer is shown what
``bridge``, an ordinary hub, encodes: when it joins, and when it lost what only a keyframe repairs. Knows
nothing of sources, RTP or HTTP.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from stream.encode import CLOCK_HZ, EncodedUnit
from stream.frames import AccessUnit, Tracks
from stream.h264 import Profile
from stream.webrtc.audience import Audience
from stream.webrtc.hub import Hub
from stream.webrtc.payload import packetise_h264
from stream.webrtc.rendition import SOURCE
from stream.webrtc.rtp_clock import RtpClock
from stream.webrtc.sei import tracks_record, tracks_sei
from stream.webrtc.viewer import Viewer

# Units handed to the loop and not yet given out, a second or so: a camera cannot be held back.
UNITS_IN_FLIGHT = 32
_MEASURED_UNITS = 128


class SourceHub(Audience):
    """A camera's own packets, with the tracks in each (``stream/webrtc/sei.py``), and their viewers.

    Args:
        name: the camera, for log lines.
        bridge: gives the viewers pictures, in H.264 without boxes drawn, until a keyframe comes.
        profile: of the camera's stream; what viewers must be able to decode.

    ``viewers`` are those who get the camera's own; those who wait for it are viewers of ``bridge``.
    """

    def __init__(self, name: str, bridge: Hub, profile: Profile) -> None:
        super().__init__(name, SOURCE)
        self.profile = profile
        self._bridge = bridge
        self._waiting: list[Viewer] = []
        self._clock = RtpClock()
        self._credit = threading.Semaphore(UNITS_IN_FLIGHT)
        self._gap = False
        self._sizes: deque[tuple[int, int]] = deque(maxlen=_MEASURED_UNITS)  # 90 kHz, bytes
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def wanted(self) -> bool:
        """Somebody watches, or waits to."""
        return bool(self._viewers or self._waiting)

    @property
    def bitrate(self) -> int:
        """Bits a second that the camera sends, over the last few seconds."""
        ticks = self._sizes[-1][0] - self._sizes[0][0] if self._sizes else 0
        return 8 * sum(size for _, size in self._sizes) * CLOCK_HZ // ticks if ticks else self._bridge.bitrate

    def join(self, viewer: Viewer) -> None:
        """Add a viewer; it gets the camera's own packets from the next keyframe on. Call on the event loop.

        Raises:
            RuntimeError: the hub is closed.
        """
        if self._closed:
            raise RuntimeError(f"hub {self.name!r} is closed")
        self._loop = asyncio.get_running_loop()
        self._bridge.join(viewer)
        self._waiting.append(viewer)

    def leave(self, viewer: Viewer) -> bool:
        """Remove a viewer. False: it was not here, which is harmless."""
        if viewer not in self._waiting:
            return super().leave(viewer)
        self._waiting.remove(viewer)
        return self._bridge.leave(viewer)

    def forward(self, unit: AccessUnit, tracks: Tracks) -> None:
        """Pass on the camera's next access unit. Called from one thread; returns at once."""
        if not self._credit.acquire(blocking=False):
            self.dropped += 1
            self._gap = True
            return
        record = tracks_record(tracks, unit.width, unit.height)
        payloads = packetise_h264(unit.data, tracks_sei(record))
        encoded = EncodedUnit(
            payloads,
            timestamp=self._clock.stamp(unit.time_s, repeat=False),
            keyframe=unit.keyframe,
            captured_at=unit.captured_at,
            size=sum(map(len, payloads)),
            record=record,
        )
        gap, self._gap = self._gap, False
        self._call(self._deliver, encoded, gap)

    def interrupt(self) -> None:
        """What is forwarded next does not follow what was forwarded last."""
        self._gap = True

    def supply(self, forwards: Profile | str) -> None:
        """What the camera sends now: of what profile, or why it is none for viewers (``Source.forwards``).

        Those who cannot go on with it are ended, with the reason.
        """
        reason = ""
        if isinstance(forwards, str):
            reason = forwards
        else:
            if forwards > self.profile:
                reason = f"this camera's H.264 is of profile {forwards.name.lower()} now"
            self.profile = forwards
        if reason and self.wanted:
            self._call(self._dismiss, reason)

    def close(self) -> None:
        """Pass nothing more on and end the viewers. Safe from any thread; does not wait."""
        self._closed = True
        self._call(self._dismiss, "the camera was closed")

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has been closed, and every viewer with it
                self._loop.call_soon_threadsafe(function, *arguments)

    def _deliver(self, unit: EncodedUnit, after_gap: bool) -> None:
        self._credit.release()
        self._sizes.append((unit.timestamp, unit.size))
        if unit.keyframe:
            self._admit()
        elif after_gap:
            for viewer in tuple(self._viewers):
                self._repair(viewer)
        if self._viewers:
            self._give(unit)

    def _admit(self) -> None:
        """A keyframe comes: those who wait go on with it."""
        waiting, self._waiting = self._waiting, []
        for viewer in waiting:
            self._bridge.leave(viewer)
            # Later, as the viewer asks in the middle of being offered a unit.
            viewer.request_keyframe = partial(self._call, self._repair, viewer)
            viewer.tally = self.tally
            viewer.move()
        self._viewers += waiting

    def _repair(self, viewer: Viewer) -> None:
        """Only a keyframe helps this viewer: it has to wait like one who joins."""
        if super().leave(viewer):
            viewer.move()
            try:
                self.join(viewer)
            except RuntimeError:  # closed by another thread meanwhile
                viewer.ended("the camera was closed")

    def _dismiss(self, reason: str) -> None:
        for viewer in self._waiting:
            self._bridge.leave(viewer)
        self._viewers += self._waiting
        self._waiting = []
        super()._dismiss(reason)
