"""One camera: its tracker, and what is shown of it. Its faults are its own.

Its ``Connection`` reads the source and reopens it for ever. The detector thread takes the newest frame from
``pending`` and gives back detections. Hubs (one a rendition) draw and encode while somebody watches; one
passes on the camera's own packets. Knows nothing of HTTP or aiortc.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic

import cv2

from stream.annotate import Annotator
from stream.config import CameraConfig, EncoderConfig
from stream.connection import Connection, State
from stream.errors import SignallingError, redact
from stream.frames import AccessUnit, Detections, Frame, Tracks
from stream.h264 import Profile
from stream.histogram import AGE_BOUNDS_S, Histogram
from stream.latest import Latest
from stream.planes import settle_tags
from stream.rate import Rate, Throttle
from stream.regions import Regions
from stream.sources import PUBLISHED
from stream.sources.inlet import Inlet
from stream.track_feed import TrackFeed
from stream.tracking import Tracker, TrackerParameters, TrackEvent, View
from stream.webrtc.audience import Audience
from stream.webrtc.hub import Hub
from stream.webrtc.rendition import SOURCE, Rendition, lower, offered
from stream.webrtc.source_hub import SourceHub

FRESH_S = 2.0  # a detection older than this is not shown on a snapshot


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """What ``/api/cameras``, the page and the metrics show. Counts are since the app started.

    ``frame_age_ms`` is how long ago the newest frame with known objects was captured: it grows when
    detection falls behind or stops. ``last_picture_age_ms`` is the same of the newest picture. ``publish_age_ms``
    is capture to handed to the viewers. ``retry_in_s`` is None unless it waits to be tried again. ``tracks`` is how
    many there are in each state of a track's life, while it is live.
    """

    id: str
    source: str
    state: State
    reason: str | None
    state_since_s: float
    retry_in_s: float | None
    backend: str | None
    backend_reason: str | None
    codec: str | None
    width: int | None
    height: int | None
    overlay: str
    detector: str
    fps: float
    detect_fps: float
    frame_age_ms: float | None
    last_picture_age_ms: float | None
    publish_age_ms: float | None
    objects: int
    tracks: dict[str, int]
    viewers: int
    decoded: int
    missed: int
    bad_packets: int
    dropped: int
    detected: int
    encoded: int
    forwarded: int
    display_dropped: int
    reconnects: int
    stalls: int


class Camera:
    """A source that is always being read, tracked and, when watched, shown.

    ``regions`` are the parts of its picture that are detected in; None is the whole.
    ``inlet`` is where a publisher's pictures come in; None if the camera fetches its own.
    """

    def __init__(
        self,
        camera_id: str,
        config: CameraConfig,
        encoder: EncoderConfig,
        wake: Callable[[], None],
    ) -> None:
        self.id = camera_id
        self.config = config
        self.pending: Latest[Frame] = Latest(lossless=config.pace == "lossless", on_put=wake)
        self.finished = threading.Event()
        self.regions = Regions(config.regions) if config.regions else None
        self.inlet = Inlet() if config.source == PUBLISHED else None
        self._encoder = encoder
        self._hubs: dict[Rendition, Hub] = {}
        self._hubs_lock = threading.Lock()
        self._source_hub: SourceHub | None = None
        self._stopped = False
        self._forwards: Profile | str | None = None  # as its source says; None: it has none now
        self._tracker = Tracker()
        self.track_feed = TrackFeed()
        self._newest: tuple[Frame, Tracks] | None = None
        self._tracked_size: tuple[int, int] | None = None
        self._connection = Connection(camera_id, config, self, self.inlet, self._on_end)
        self._detected = 0
        self._fps, self._detect_fps = Rate(), Rate()
        self._throttle = Throttle(config.detect_fps)
        self.detect_ages = Histogram(AGE_BOUNDS_S)  # capture to known objects

    def start(self) -> None:
        self._connection.start()

    def request_stop(self) -> None:
        """Tell its threads to end; returns at once."""
        with self._hubs_lock:
            self._stopped = True
        if self.inlet is not None:
            self.inlet.closed = True
        self._connection.request_stop()
        self.track_feed.close(f"camera {self.id!r} is being changed or removed")
        self.pending.close()
        for hub in self._all_hubs:
            hub.close()

    def join(self, timeout_s: float) -> None:
        """Wait until its threads have ended. One that hangs in C is left behind (it is a daemon)."""
        self._connection.join(timeout_s)

    def hub(self, rendition: Rendition) -> Hub:
        """The one encoder that all viewers of a rendition share; made on first use.

        Its height is one of the configured ones, the least that is not below what is asked for.

        Raises:
            SignallingError: 503, the camera was told to end: nothing would come any more.
        """
        rendition = offered(rendition, self._encoder.heights, self._picture_height)
        with self._hubs_lock:
            if self._stopped:
                raise SignallingError(f"camera {self.id!r} is being changed or removed; try again", 503, 1)
            if rendition not in self._hubs:
                self._hubs[rendition] = Hub(
                    self.id,
                    rendition,
                    Annotator().draw,
                    bitrate=self._encoder.bitrate_kbps * 1000,
                    h264=self._encoder.h264,
                    lossless=self.config.pace == "lossless",
                )
            return self._hubs[rendition]

    def source_hub(self) -> SourceHub:
        """What passes the camera's own H.264 on, to all who want it; made on first use.

        Raises:
            SignallingError: 406, its stream cannot be passed on; 503, there is no stream now.
        """
        forwards = self._forwards
        if forwards is None:
            raise SignallingError(f"camera {self.id!r} sends no pictures now; try again later", 503, 1)
        if isinstance(forwards, str):
            raise SignallingError(f"{forwards}; leave out rendition=source", 406)
        bridge = self.hub(replace(SOURCE, source=False))
        with self._hubs_lock:
            if self._source_hub is None:
                self._source_hub = SourceHub(self.id, bridge, forwards)
            return self._source_hub

    @property
    def down(self) -> bool:
        """It had its chance to send, and does not."""
        return self._connection.condition.state not in ("connecting", "live")

    @property
    def audiences(self) -> Sequence[Audience]:
        """One a rendition that was ever watched; their counters are for metrics."""
        return self._all_hubs

    @property
    def _all_hubs(self) -> list[Hub | SourceHub]:
        """The one that leans on another comes first."""
        own = self._source_hub
        return [*([] if own is None else [own]), *list(self._hubs.values())]

    def lower(self, rendition: Rendition) -> Rendition | None:
        """What a viewer gets who cannot have this one; None where nothing is below."""
        return lower(rendition, self._encoder.heights, self._picture_height)

    @property
    def _picture_height(self) -> int | None:
        last = self._connection.last
        return None if last is None else last.picture.height

    def detected(self, frame: Frame, detections: Detections, tracking: TrackerParameters) -> Tracks:
        """Take the detections of one frame (called by the detector thread, in order of time).

        Args:
            frame: of this camera.
            detections: in it, of whichever model runs by now.
            tracking: for detections of that model.
        """
        self._tracker.adopt(tracking)
        events: tuple[TrackEvent, ...] = ()
        if _size(frame) != self._tracked_size:  # the boxes of the old picture mean nothing in the new one
            self._tracker.clear()
            self._tracked_size, events = _size(frame), self._tracker.events
        tracks = self._tracker.update(detections, frame.time_s, View.of(frame.picture))
        self.track_feed.publish(frame, self._tracker, (*events, *self._tracker.events))
        self._newest = (frame, tracks)
        self._detected += 1
        self.detect_ages.observe(monotonic() - frame.captured_at)
        self._detect_fps.tick()
        if self.config.overlay == "exact":
            self._show(frame, tracks)
        return tracks

    def undetected(self, frame: Frame) -> None:
        """Take note that the model failed on this frame: the picture goes on, without boxes."""
        if self.config.overlay == "exact":
            self._show(frame, Tracks.empty())

    def newest(self) -> tuple[Frame, Tracks] | None:
        """The newest detected frame and its tracks; None before the first."""
        return self._newest

    def snapshot(self) -> bytes | None:
        """The newest picture as JPEG, with its boxes if it was detected; None before the first."""
        frame, tracks = self._newest or (None, Tracks.empty())
        last = self._connection.last
        if last is None:
            return None
        if frame is None or last.captured_at - frame.captured_at > FRESH_S:
            frame, tracks = last, Tracks.empty()
        picture = Annotator().draw(frame.picture, tracks)
        encoded, jpeg = cv2.imencode(".jpg", picture.to_ndarray(format="bgr24"))
        return jpeg.tobytes() if encoded else None

    def status(self) -> CameraStatus:
        connection, hubs, own, newest = self._connection, self._all_hubs, self._source_hub, self._newest
        info, last, condition = connection.info, connection.last, connection.condition
        live = condition.state == "live"
        ages_s = [hub.publish_age_s for hub in hubs if hub.viewers and hub.publish_age_s is not None]
        return CameraStatus(
            id=self.id,
            source=redact(self.config.source),
            state=condition.state,
            reason=condition.reason,
            state_since_s=round(monotonic() - condition.since, 1),
            retry_in_s=None if condition.retry_in_s is None else round(condition.retry_in_s, 1),
            backend=info.backend if info else None,
            backend_reason=info.reason if info else None,
            codec=info.codec if info else None,
            width=last.picture.width if last else None,
            height=last.picture.height if last else None,
            overlay=self.config.overlay,
            detector=self.config.detector,
            fps=round(self._fps.per_second(), 1),
            detect_fps=round(self._detect_fps.per_second(), 1),
            frame_age_ms=_age_ms(newest[0]) if newest else None,
            last_picture_age_ms=_age_ms(last) if last else None,
            publish_age_ms=round(max(ages_s) * 1000, 1) if ages_s else None,
            objects=len(newest[1]) if newest and live else 0,
            tracks=self._tracker.counts() if live else {},
            viewers=sum(hub.viewers for hub in hubs),
            decoded=connection.decoded,
            missed=connection.missed,
            bad_packets=connection.bad_packets,
            dropped=self.pending.overwritten,
            detected=self._detected,
            encoded=sum(hub.units for hub in hubs if hub is not own),
            forwarded=0 if own is None else own.units,
            display_dropped=sum(hub.dropped for hub in hubs),
            reconnects=connection.reconnects,
            stalls=connection.stalls,
        )

    # What the connection's threads call (``stream/connection.py``: ``Receiver``)

    def take(self, frame: Frame) -> None:
        """One frame from the source: to the detector, and where every frame is shown, to the viewers."""
        settle_tags(frame.picture)
        self._fps.tick()
        if (self.config.detect == "always" or self._watched) and self._throttle.is_due(frame.time_s):
            self.pending.put(frame)
        if self.config.overlay == "smooth" and self._hubs:
            # Also while nobody watches: a hub greets whoever joins with the newest picture.
            same_size = _size(frame) == self._tracked_size
            self._show(frame, self._tracker.predict(frame.time_s) if same_size else Tracks.empty())

    def supply(self, forwards: Profile | str | None) -> bool:
        """Whether somebody wants the source's own packets; who can no longer have them is ended."""
        self._forwards, hub = forwards, self._source_hub
        if hub is None:
            return False
        if forwards is None:
            hub.interrupt()
            return False
        hub.supply(forwards)
        return hub.wanted

    def forward(self, unit: AccessUnit) -> None:
        """One access unit, from the thread that reads the source."""
        hub = self._source_hub
        if hub is not None:
            same_size = (unit.width, unit.height) == self._tracked_size
            tracks = self._tracker.predict(unit.time_s) if same_size else Tracks.empty()
            hub.forward(unit, tracks)

    def _on_end(self) -> None:
        self.pending.close()
        self.finished.set()

    @property
    def _watched(self) -> bool:
        return any(hub.viewers for hub in self._all_hubs)

    def _show(self, frame: Frame, tracks: Tracks) -> None:
        for hub in list(self._hubs.values()):
            hub.show(frame, tracks)


def _size(frame: Frame) -> tuple[int, int]:
    return frame.picture.width, frame.picture.height


def _age_ms(frame: Frame) -> float:
    return round((monotonic() - frame.captured_at) * 1000, 1)
