"""``Hub``: draws and encodes one camera once, for all its viewers of one rendition.

Pipeline threads call ``show``; the event loop's thread joins and removes viewers. While there is
a viewer, one encoder thread takes the newest picture, draws, encodes and hands the unit to the
loop, which gives it to every viewer. Without one nothing is drawn or encoded. Knows nothing of
aiortc, RTP or HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from time import monotonic
from typing import TypeVar

from av import VideoFrame

from stream.encode import NOMINAL_FRAME_RATE, EncodedUnit, H264Name, make_encoder
from stream.frames import Frame, Tracks
from stream.latest import Latest
from stream.planes import Shrinker, writable
from stream.webrtc.audience import Audience
from stream.webrtc.rendition import Rendition
from stream.webrtc.rtp_clock import RtpClock
from stream.webrtc.sei import tracks_record, tracks_sei
from stream.webrtc.viewer import Viewer

log = logging.getLogger(__name__)

T = TypeVar("T")

Draw = Callable[[VideoFrame, Tracks], VideoFrame]

# However many ask, keyframes come no closer together than this: soon for who has no picture yet,
# later for who lost one (a storm of reports must not eat everybody's bits).
JOIN_GAP_S = 0.1
REPAIR_GAP_S = 0.4
# A picture older than this is no way to greet a viewer; it waits for the next one.
STALE_S = 10.0
# Units handed to the loop and not yet given out. A loop that lags holds the encoder back, so
# pictures are dropped before they are encoded and what was encoded stays decodable.
UNITS_IN_FLIGHT = 4


@dataclass(frozen=True, slots=True)
class _Shown:
    number: int
    frame: Frame
    tracks: Tracks


class Hub(Audience):
    """One rendition of one camera, and its viewers.

    Args:
        name: the camera, for thread names and log lines.
        rendition: what is made. With ``boxes="data"`` pictures stay as they are, and the tracks go along as data:
            with each unit, and inside it in H.264 (``stream/webrtc/sei.py``).
        draw: a picture with its tracks drawn; may return the same picture if there is nothing to draw.
        bitrate: bits a second of a picture that is not shrunk.
        h264: what makes H.264.
        lossless: ``show`` waits for the encoder instead of dropping (offline runs and tests).

    ``dropped`` counts pictures offered while somebody watched that were never encoded.
    ``encoder_starts`` is for tests: nothing else tells what the viewers share.
    """

    def __init__(
        self,
        name: str,
        rendition: Rendition,
        draw: Draw,
        *,
        bitrate: int,
        h264: H264Name = "libx264",
        lossless: bool = False,
    ) -> None:
        super().__init__(name, rendition)
        self.encoder_starts = 0
        self._draw = draw
        self._bitrate = bitrate
        self._h264 = h264
        self._lossless = lossless
        self._frame_rate = NOMINAL_FRAME_RATE
        self._clock = RtpClock()
        self._newest: _Shown | None = None
        self._number = 0
        self._run: _Run | None = None
        self._closed = False

    @property
    def bitrate(self) -> int:
        """Bits a second of the newest picture's size, as it is encoded."""
        if self._newest is None:
            return self._bitrate
        picture = self._newest.frame.picture
        return self.rendition.bitrate(self._bitrate, picture.width, picture.height)

    def show(self, frame: Frame, tracks: Tracks) -> None:
        """Offer the newest picture. Called from one pipeline thread; returns at once (unless lossless)."""
        self._number += 1
        shown = self._newest = _Shown(self._number, frame, tracks)
        run = self._run
        if run is not None:
            run.inbox.put(shown)

    def join(self, viewer: Viewer) -> None:
        """Add a viewer; its first unit is a keyframe, made at once. Call on the event loop.

        Raises:
            RuntimeError: the hub is closed.
        """
        if self._closed:
            raise RuntimeError(f"hub {self.name!r} is closed")
        viewer.request_keyframe, viewer.tally = self.request_keyframe, self.tally
        self._viewers.append(viewer)
        if self._run is None:
            self._run = _Run(self, asyncio.get_running_loop())
            self.encoder_starts += 1
            self._run.start()
        self._run.need_keyframe(JOIN_GAP_S, self._newest)
        if self._closed:  # by another thread meanwhile, which may not have seen the run
            self.close()

    def leave(self, viewer: Viewer) -> bool:
        """Remove a viewer; the last one stops the encoder. False: it was not here, which is harmless."""
        joined = super().leave(viewer)
        if not self._viewers:
            self._stop_run()
        return joined

    def request_keyframe(self) -> None:
        """A viewer lost a picture. Requests are merged and rate-limited. Call on the event loop."""
        if self._run is not None:
            self._run.need_keyframe(REPAIR_GAP_S, self._newest)

    def close(self) -> None:
        """Encode nothing more and end the viewers. Safe from any thread; does not wait."""
        self._closed = True
        run = self._run
        if run is not None:
            run.call(self._end, "the camera was closed")
            run.stop()

    def _stop_run(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.stop()

    def _deliver(self, run: _Run, unit: EncodedUnit) -> None:
        run.credit.release()
        if run is self._run:
            self._give(unit)

    def _end(self, run: _Run, reason: str) -> None:
        if run is self._run:
            self._run = None
            self._dismiss(reason)


class _Run:
    """One life of the encoder thread, from the first viewer to the last."""

    def __init__(self, hub: Hub, loop: asyncio.AbstractEventLoop) -> None:
        self.inbox: Latest[_Shown] = Latest(lossless=hub._lossless)
        self.credit = threading.Semaphore(UNITS_IN_FLIGHT)
        self._hub = hub
        self._lossless = hub._lossless
        self._loop = loop
        self._encoder = make_encoder(hub.rendition.codec, hub._bitrate, hub._frame_rate, hub._h264)
        self._shrinker = Shrinker()
        self._previous: _Shown | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._keyframe_due_at = -inf
        self._keyframe_at = -inf
        self._thread = threading.Thread(target=self._encode_for_ever, name=f"encode-{hub.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the picture it is at; returns at once."""
        self._stopping.set()
        self.inbox.close()
        self.credit.release()

    def call(self, function: Callable[[_Run, T], None], argument: T) -> None:
        """Run ``function`` on the viewers' loop."""
        try:
            self._loop.call_soon_threadsafe(function, self, argument)
        except RuntimeError:  # the loop has been closed, and every viewer with it
            self.stop()

    def need_keyframe(self, gap_s: float, newest: _Shown | None) -> None:
        """Make a keyframe ``gap_s`` after the last at the earliest; of ``newest`` if nothing newer comes."""
        with self._lock:
            self._keyframe_due_at = min(self._keyframe_due_at, max(monotonic(), self._keyframe_at + gap_s))
        # The thread may be waiting for the next picture of a slow camera; this wakes it.
        if newest is not None and not self._lossless and newest.frame.captured_at > monotonic() - STALE_S:
            self.inbox.put(newest)

    def _encode_for_ever(self) -> None:
        try:
            # The credit comes first: what is then taken from the inbox is the newest there is.
            while self.credit.acquire() and (picked := self._pick()) is not None:
                self.call(self._hub._deliver, self._encode(*picked))
        except Exception as error:
            log.exception("hub %s: drawing or encoding failed; its viewers are closed", self._hub.name)
            self.call(self._hub._end, f"{type(error).__name__}: {error}")
        finally:
            self.inbox.close()  # a lossless ``show`` may be waiting for it to be emptied
        self._hub._frame_rate = self._encoder.frame_rate

    def _pick(self) -> tuple[_Shown, bool] | None:
        """The next picture and whether it must be a keyframe; None when stopped.

        A picture that was already encoded is taken again only for a keyframe that is due.
        """
        while not self._stopping.is_set():
            shown = self.inbox.get(self._patience_s()) or self._previous
            if shown is not None and not self._lossless:
                # What woke us for a keyframe may be older than what was shown meanwhile.
                shown = self._hub._newest or shown
            due = monotonic() >= self._keyframe_due_at
            if shown is not None and (due or shown is not self._previous):
                return shown, due
        return None

    def _patience_s(self) -> float | None:
        if self._previous is None or self._keyframe_due_at == inf:
            return None
        return max(0.0, self._keyframe_due_at - monotonic())

    def _encode(self, shown: _Shown, keyframe: bool) -> EncodedUnit:
        hub, frame, previous = self._hub, shown.frame, self._previous
        repeat = shown is previous
        if previous is not None and not repeat:
            hub.dropped += shown.number - previous.number - 1
        if keyframe:
            with self._lock:
                self._keyframe_due_at, self._keyframe_at = inf, monotonic()
        self._encoder.bitrate = hub.rendition.bitrate(hub._bitrate, frame.picture.width, frame.picture.height)
        picture, tracks, record = frame.picture, shown.tracks, b""
        size = hub.rendition.size(picture.width, picture.height)
        if size != (picture.width, picture.height):
            tracks = tracks.scaled(size[0] / picture.width, size[1] / picture.height)
            picture = self._shrinker.shrunk(picture, *size)
        if hub.rendition.boxes == "data":
            record = tracks_record(tracks, picture.width, picture.height)
        else:
            picture = hub._draw(picture, tracks)
        if picture is frame.picture:  # the decoder's own, and not only ours
            picture = writable(picture)
        timestamp = hub._clock.stamp(frame.time_s, repeat)
        sei = tracks_sei(record) if record and hub.rendition.codec == "h264" else b""
        unit = self._encoder.encode(picture, timestamp, keyframe, frame.captured_at, sei)
        self._previous = shown
        return replace(unit, repeat=repeat, record=record)
