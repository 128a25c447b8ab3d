"""One camera: its source, its tracker, what is shown of it. Its faults are its own.

A decode thread reads the source and reopens it for ever, with capped exponential backoff and
jitter. The detector thread takes the newest frame from ``pending`` and gives back detections.
Hubs (one a codec) draw and encode while somebody watches. Knows nothing of HTTP or aiortc.
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
from stream.encode import Codec
from stream.errors import LookoutError, SourceBroken, SourceError, redact
from stream.frames import Detections, Frame, Tracks
from stream.latest import Latest
from stream.metrics import Rate
from stream.sources import Source, SourceInfo, SourceOptions, open_source
from stream.tracking import Tracker, TrackerParameters
from stream.webrtc.hub import Hub

log = logging.getLogger(__name__)

State = Literal["connecting", "live", "stalled", "reconnecting", "ended", "stopped"]
FIRST_BACKOFF_S = 0.5
SETTLED_S = 10.0  # live for this long: the next failure starts from the first backoff again


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """What ``/api/cameras``, the page and the metrics show. Counts are since the app started."""

    id: str
    source: str
    state: State
    reason: str | None
    backend: str | None
    codec: str | None
    width: int | None
    height: int | None
    overlay: str
    fps: float
    detect_fps: float
    frame_age_ms: float
    publish_age_ms: float | None
    objects: int
    viewers: int
    decoded: int
    dropped: int
    detected: int
    encoded: int
    display_dropped: int
    reconnects: int


class Camera:
    """A source that is always being read, tracked and, when watched, shown."""

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
        self._names = names
        self._encoder = encoder
        self._hubs: dict[Codec, Hub] = {}
        self._hubs_lock = threading.Lock()
        self._tracker = Tracker(tracking)
        self._newest: tuple[Frame, Tracks] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read_for_ever, name=f"decode-{camera_id}", daemon=True)
        self._state: State = "connecting"
        self._reason: str | None = None
        self._info: SourceInfo | None = None
        self._clock = _Clock()
        self._decoded = self._detected = self._reconnects = 0
        self._frame_age_s = 0.0
        self._fps, self._detect_fps = Rate(), Rate()

    def start(self) -> None:
        self._thread.start()

    def request_stop(self) -> None:
        """Tell its threads to end; returns at once."""
        self._stop.set()
        self.pending.close()
        for hub in list(self._hubs.values()):
            hub.close()

    def join(self, timeout_s: float) -> None:
        """Wait for the decode thread. One that hangs in C is left behind (it is a daemon)."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.warning("camera %s: its decoder does not end and is left behind", self.id)

    def hub(self, codec: Codec) -> Hub:
        """The one encoder for ``codec`` that all its viewers share; made on first use."""
        with self._hubs_lock:
            if codec not in self._hubs:
                self._hubs[codec] = Hub(
                    self.id,
                    Annotator(self._names).draw,
                    codec=codec,
                    bitrate=self._encoder.bitrate_kbps * 1000,
                    lossless=self.config.pace == "lossless",
                )
            return self._hubs[codec]

    def detected(self, frame: Frame, detections: Detections) -> Tracks:
        """Take the detections of one frame (called by the detector thread, in order of time)."""
        tracks = self._tracker.update(detections, frame.time_s)
        self._newest = (frame, tracks)
        self._detected += 1
        self._detect_fps.tick()
        self._frame_age_s = monotonic() - frame.captured_at
        if self.config.overlay == "exact":
            self._show(frame, tracks)
        return tracks

    def newest(self) -> tuple[Frame, Tracks] | None:
        """The newest detected frame and its tracks; None before the first."""
        return self._newest

    def snapshot(self) -> bytes | None:
        """The newest detected picture with its boxes as JPEG; None before the first."""
        if self._newest is None:
            return None
        frame, tracks = self._newest
        picture = Annotator(self._names).draw(frame.picture, tracks)
        encoded, jpeg = cv2.imencode(".jpg", picture.to_ndarray(format="bgr24"))
        return jpeg.tobytes() if encoded else None

    def status(self) -> CameraStatus:
        info, hubs = self._info, list(self._hubs.values())
        ages_s = [hub.publish_age_s for hub in hubs if hub.viewers and hub.publish_age_s is not None]
        return CameraStatus(
            id=self.id,
            source=redact(self.config.source),
            state=self._state,
            reason=self._reason,
            backend=info.backend if info else None,
            codec=info.codec if info else None,
            width=info.width if info else None,
            height=info.height if info else None,
            overlay=self.config.overlay,
            fps=round(self._fps.per_second(), 1),
            detect_fps=round(self._detect_fps.per_second(), 1),
            frame_age_ms=round(self._frame_age_s * 1000, 1),
            publish_age_ms=round(max(ages_s) * 1000, 1) if ages_s else None,
            objects=len(self._newest[1]) if self._newest else 0,
            viewers=sum(hub.viewers for hub in hubs),
            decoded=self._decoded,
            dropped=self.pending.overwritten,
            detected=self._detected,
            encoded=sum(hub.units for hub in hubs),
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
            except LookoutError as error:
                reason = error.reason if isinstance(error, SourceError) else "failed"
                self._reason = f"{reason}: {redact(str(error))}"
                log.warning("camera %s: %s", self.id, self._reason)
            except Exception as error:  # a fault of ours must not end the camera for good
                log.exception("camera %s: unexpected %s", self.id, type(error).__name__)
                self._reason = f"failed: {type(error).__name__}"
            if self._stop.is_set():
                break
            self._state = "reconnecting"
            self._reconnects += 1
            if monotonic() - opened_at > SETTLED_S:
                backoff_s = FIRST_BACKOFF_S
            self._stop.wait(backoff_s * random.uniform(0.8, 1.2))
            backoff_s = min(2 * backoff_s, self.config.max_backoff_s)
        if self._state != "ended":
            self._state = "stopped"
        self.pending.close()
        self.finished.set()

    def _read_once(self) -> None:
        """Open the source and read it to its end."""
        options = SourceOptions(
            transport=self.config.transport,
            loop=self.config.loop,
            pace=self.config.pace,
            stall_s=self.config.stall_s,
        )
        with closing(open_source(self.config.source, options, self._stop)) as source:
            self._clock.restart()
            self._info = source.info
            log.info("camera %s: %s", self.id, describe(source.info))
            while not self._stop.is_set() and (frame := self._next(source)) is not None:
                self._decoded += 1
                self._fps.tick()
                self._state, self._reason = "live", None
                if self.config.detect == "always" or self._watched:
                    self.pending.put(frame)
                if self.config.overlay == "smooth" and self._hubs:
                    # Also while nobody watches: a hub greets whoever joins with the newest picture.
                    self._show(frame, self._tracker.predict(frame.time_s))
            if source.info.live and not self._stop.is_set():
                raise SourceBroken(f"{redact(self.config.source)}: the stream ended; expected it to go on")

    def _next(self, source: Source) -> Frame | None:
        frame = source.read()
        return None if frame is None else self._clock.align(frame)

    @property
    def _watched(self) -> bool:
        return any(hub.viewers for hub in self._hubs.values())

    def _show(self, frame: Frame, tracks: Tracks) -> None:
        for hub in list(self._hubs.values()):
            hub.show(frame, tracks)


class _Clock:
    """Keeps ``time_s`` and ``index`` growing when a source is opened again and starts at zero."""

    def __init__(self) -> None:
        self._last: Frame | None = None
        self._time_offset_s = 0.0
        self._index_offset = 0
        self._restarted = False

    def restart(self) -> None:
        self._restarted = self._last is not None

    def align(self, frame: Frame) -> Frame:
        if self._restarted and self._last is not None:
            gap_s = max(frame.captured_at - self._last.captured_at, 1e-3)
            self._time_offset_s = self._last.time_s + gap_s - frame.time_s
            self._index_offset = self._last.index + 1 - frame.index
            self._restarted = False
        self._last = replace(
            frame, time_s=frame.time_s + self._time_offset_s, index=frame.index + self._index_offset
        )
        return self._last


def describe(info: SourceInfo) -> str:
    """One line about an opened source: backend, codec, size, rate."""
    rate = f" @ {info.frame_rate:.3g} fps" if info.frame_rate else ""
    return f"{info.backend}, {info.codec} {info.width}x{info.height}{rate}"
