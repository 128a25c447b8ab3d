"""One camera: its source, its tracker, what is shown of it. Its faults are its own.

A decode thread reads the source and reopens it for ever, with capped exponential backoff and
jitter; one that is published to waits for its publisher. The detector thread takes the newest
frame from ``pending`` and gives back detections.
Hubs (one a rendition) draw and encode while somebody watches; one passes on the camera's own packets.
Knows nothing of HTTP or aiortc.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from time import monotonic
from typing import Literal

import cv2

from stream.annotate import Annotator
from stream.config import CameraConfig, EncoderConfig
from stream.errors import (
    LookoutError,
    NothingPublished,
    SignallingError,
    SourceBroken,
    SourceError,
    redact,
)
from stream.frames import AccessUnit, Detections, Frame, Tracks
from stream.h264 import Profile
from stream.histogram import AGE_BOUNDS_S, Histogram
from stream.latest import Latest
from stream.planes import settle_tags
from stream.rate import Rate, Throttle
from stream.regions import Regions
from stream.sources import PUBLISHED, Source, SourceInfo, SourceOptions, open_source
from stream.sources.clock import CameraClock
from stream.sources.inlet import Inlet
from stream.tracking import Tracker, TrackerParameters
from stream.webrtc.audience import Audience
from stream.webrtc.hub import Hub
from stream.webrtc.rendition import SOURCE, Rendition, lower, offered
from stream.webrtc.source_hub import SourceHub

log = logging.getLogger(__name__)

State = Literal["connecting", "live", "reconnecting", "ended", "stopped"]
FIRST_BACKOFF_S = 0.5
FRESH_S = 2.0  # a detection older than this is not shown on a snapshot
SETTLED_S = 10.0  # live for this long: the next failure starts from the first backoff again


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """What ``/api/cameras``, the page and the metrics show. Counts are since the app started.

    ``frame_age_ms`` is how long ago the newest frame with known objects was captured: it grows when
    detection falls behind or stops. ``publish_age_ms`` is capture to handed to the viewers.
    """

    id: str
    source: str
    state: State
    reason: str | None
    backend: str | None
    codec: str | None
    width: int | None
    height: int | None
    overlay: str
    detector: str
    fps: float
    detect_fps: float
    frame_age_ms: float | None
    publish_age_ms: float | None
    objects: int
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
        names: Sequence[str],
        tracking: TrackerParameters,
        wake: Callable[[], None],
    ) -> None:
        self.id = camera_id
        self.config = config
        self.pending: Latest[Frame] = Latest(lossless=config.pace == "lossless", on_put=wake)
        self.finished = threading.Event()
        self.regions = Regions(config.regions) if config.regions else None
        self.inlet = Inlet() if config.source == PUBLISHED else None
        self._names = names
        self._encoder = encoder
        self._hubs: dict[Rendition, Hub] = {}
        self._hubs_lock = threading.Lock()
        self._source_hub: SourceHub | None = None
        self._forwards: Profile | str | None = None  # as its source says; None: it has none now
        self._tracker = Tracker(tracking)
        self._newest: tuple[Frame, Tracks] | None = None
        self._tracked_size: tuple[int, int] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read_for_ever, name=f"decode-{camera_id}", daemon=True)
        self._state: State = "connecting"
        self._reason: str | None = None
        self._info: SourceInfo | None = None
        self._clock = CameraClock()
        self._decoded = self._missed = self._bad_packets = self._detected = self._reconnects = 0
        self._last: Frame | None = None
        self._fps, self._detect_fps = Rate(), Rate()
        self._throttle = Throttle(config.detect_fps)
        self.detect_ages = Histogram(AGE_BOUNDS_S)  # capture to known objects

    def start(self) -> None:
        self._thread.start()

    def request_stop(self) -> None:
        """Tell its threads to end; returns at once."""
        self._stop.set()
        self.pending.close()
        for hub in self._all_hubs:
            hub.close()

    def join(self, timeout_s: float) -> None:
        """Wait for the decode thread. One that hangs in C is left behind (it is a daemon)."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.warning("camera %s: its decoder does not end and is left behind", self.id)

    def hub(self, rendition: Rendition) -> Hub:
        """The one encoder that all viewers of a rendition share; made on first use.

        Its height is one of the configured ones, the least that is not below what is asked for.
        """
        rendition = offered(rendition, self._encoder.heights, self._picture_height)
        with self._hubs_lock:
            if rendition not in self._hubs:
                self._hubs[rendition] = Hub(
                    self.id,
                    rendition,
                    Annotator(self._names).draw,
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
        return None if self._last is None else self._last.picture.height

    def detected(self, frame: Frame, detections: Detections) -> Tracks:
        """Take the detections of one frame (called by the detector thread, in order of time)."""
        if _size(frame) != self._tracked_size:  # the boxes of the old picture mean nothing in the new one
            self._tracker.clear()
            self._tracked_size = _size(frame)
        tracks = self._tracker.update(detections, frame.time_s)
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
        last = self._last
        if last is None:
            return None
        if frame is None or last.captured_at - frame.captured_at > FRESH_S:
            frame, tracks = last, Tracks.empty()
        picture = Annotator(self._names).draw(frame.picture, tracks)
        encoded, jpeg = cv2.imencode(".jpg", picture.to_ndarray(format="bgr24"))
        return jpeg.tobytes() if encoded else None

    def status(self) -> CameraStatus:
        info, last, hubs, own = self._info, self._last, self._all_hubs, self._source_hub
        newest = self._newest
        ages_s = [hub.publish_age_s for hub in hubs if hub.viewers and hub.publish_age_s is not None]
        return CameraStatus(
            id=self.id,
            source=redact(self.config.source),
            state=self._state,
            reason=self._reason,
            backend=info.backend if info else None,
            codec=info.codec if info else None,
            width=last.picture.width if last else None,
            height=last.picture.height if last else None,
            overlay=self.config.overlay,
            detector=self.config.detector,
            fps=round(self._fps.per_second(), 1),
            detect_fps=round(self._detect_fps.per_second(), 1),
            frame_age_ms=round((monotonic() - newest[0].captured_at) * 1000, 1) if newest else None,
            publish_age_ms=round(max(ages_s) * 1000, 1) if ages_s else None,
            objects=len(newest[1]) if newest and self._state == "live" else 0,
            viewers=sum(hub.viewers for hub in hubs),
            decoded=self._decoded,
            missed=self._missed,
            bad_packets=self._bad_packets,
            dropped=self.pending.overwritten,
            detected=self._detected,
            encoded=sum(hub.units for hub in hubs if hub is not own),
            forwarded=0 if own is None else own.units,
            display_dropped=sum(hub.dropped for hub in hubs),
            reconnects=self._reconnects,
        )

    # The decode thread

    def _read_for_ever(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while not self._stop.is_set():
            opened_at = monotonic()
            try:
                self._read_once()
                self._state, self._reason = "ended", None
                break
            except NothingPublished as error:
                self._forwards = None
                self._await_publisher(str(error))
                continue
            except LookoutError as error:
                if self._stop.is_set():
                    break  # whatever it says, it was we who ended it
                reason = error.reason if isinstance(error, SourceError) else "failed"
                self._reason = f"{reason}: {redact(str(error))}"
                log.warning("camera %s: %s", self.id, self._reason)
            except Exception as error:  # a fault of ours must not end the camera for good
                log.exception("camera %s: unexpected %s", self.id, type(error).__name__)
                self._reason = f"failed: {type(error).__name__}"
            self._state, self._forwards = "reconnecting", None
            self._reconnects += 1
            if monotonic() - opened_at > SETTLED_S:
                backoff_s = FIRST_BACKOFF_S
            self._stop.wait(backoff_s * random.uniform(0.8, 1.2))
            backoff_s = min(2 * backoff_s, self.config.max_backoff_s)
        self._forwards = None
        if self._state != "ended":
            self._state = "stopped"
        self.pending.close()
        self.finished.set()

    def _await_publisher(self, why: str) -> None:
        """Until somebody publishes, or there is more to say. It is no fault: nobody is warned."""
        assert self.inlet is not None
        if self._state == "live":
            self._state = "reconnecting"
            self._reconnects += 1
        self._reason = f"waiting: {why}; publish to /whip/{self.id}"
        log.info("camera %s: %s", self.id, self._reason)
        self.inlet.wait(why, self._stop)

    def _read_once(self) -> None:
        """Open the source and read it to its end."""
        options = SourceOptions(
            backend=self.config.backend,
            hwaccel=self.config.hwaccel,
            transport=self.config.transport,
            latency_ms=self.config.latency_ms,
            loop=self.config.loop,
            start_s=self.config.start_s,
            pace=self.config.pace,
            stall_s=self.config.stall_s,
            inlet=self.inlet,
        )
        with closing(open_source(self.config.source, options, self._stop)) as source:
            self._clock.restart()
            if self._source_hub is not None:
                self._source_hub.interrupt()
            self._info = source.info
            bad_packets_before = self._bad_packets
            log.info("camera %s: %s", self.id, describe(source.info))
            while not self._stop.is_set() and (read := source.read()) is not None:
                self._pass_on(source)
                self._take(self._clock.align(read))
                self._bad_packets = bad_packets_before + source.bad_packets
            if source.info.live and not self._stop.is_set():
                raise SourceBroken(f"{redact(self.config.source)}: the stream ended; expected it to go on")

    def _take(self, frame: Frame) -> None:
        """One frame from the source: to the detector, and where every frame is shown, to the viewers."""
        settle_tags(frame.picture)
        self._decoded += 1
        self._missed += 0 if self._last is None else frame.index - self._last.index - 1
        self._last = frame
        self._fps.tick()
        self._state, self._reason = "live", None
        if (self.config.detect == "always" or self._watched) and self._throttle.is_due(frame.time_s):
            self.pending.put(frame)
        if self.config.overlay == "smooth" and self._hubs:
            # Also while nobody watches: a hub greets whoever joins with the newest picture.
            same_size = _size(frame) == self._tracked_size
            self._show(frame, self._tracker.predict(frame.time_s) if same_size else Tracks.empty())

    def _pass_on(self, source: Source) -> None:
        """Have the source's own packets come while somebody wants them, or end who can no longer have them."""
        self._forwards, hub = source.forwards, self._source_hub
        if hub is not None:
            hub.supply(self._forwards)
            source.listener = self._forward if hub.wanted else None

    def _forward(self, unit: AccessUnit) -> None:
        """One access unit, from whatever thread reads the source."""
        hub, time_s = self._source_hub, self._clock.aligned_s(unit.time_s, unit.captured_at)
        if hub is not None:
            same_size = (unit.width, unit.height) == self._tracked_size
            tracks = self._tracker.predict(time_s) if same_size else Tracks.empty()
            hub.forward(replace(unit, time_s=time_s), tracks)

    @property
    def _watched(self) -> bool:
        return any(hub.viewers for hub in self._all_hubs)

    def _show(self, frame: Frame, tracks: Tracks) -> None:
        for hub in list(self._hubs.values()):
            hub.show(frame, tracks)


def _size(frame: Frame) -> tuple[int, int]:
    return frame.picture.width, frame.picture.height


def describe(info: SourceInfo) -> str:
    """One line about an opened source: backend and why that one, codec, size, rate."""
    rate = f" @ {info.frame_rate:.3g} fps" if info.frame_rate else ""
    why = f" ({info.reason})" if info.reason else ""
    return f"{info.backend}{why}, {info.codec} {info.width}x{info.height}{rate}"
