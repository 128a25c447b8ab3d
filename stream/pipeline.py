"""The path of a frame: every camera's newest frame -> one detector thread -> that camera's tracker.

    camera -- decode thread --> Latest[Frame] --> detector thread (batches) --> tracker --> hub

The detector thread takes at most one frame of each camera into a batch and begins where it left
off, so that under overload no camera starves. Knows nothing of HTTP, WebRTC or torch.
"""

from __future__ import annotations

import logging
import threading
from time import monotonic

from stream.camera import Camera
from stream.config import AppConfig
from stream.detector import Detector
from stream.errors import SignallingError
from stream.frames import Frame
from stream.tracking import TrackerParameters

log = logging.getLogger(__name__)


class Pipeline:
    """All cameras and the one detector that serves them.

    ``fault`` says why the detector last failed, and is None while it works.
    """

    def __init__(self, config: AppConfig, detector: Detector) -> None:
        self.detector = detector
        self.batches = 0
        self.fault: str | None = None
        self.tracking = TrackerParameters.for_threshold(config.detector.score_threshold)
        self.cameras = {
            name: Camera(name, camera, config.encoder, detector.spec.names, self.tracking, self._awake)
            for name, camera in config.cameras.items()
        }
        self._max_batch = config.detector.max_batch
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._first = 0
        self._thread = threading.Thread(target=self._detect_for_ever, name="detect", daemon=True)

    def start(self) -> None:
        """Start every camera; one that is down does not hold back the others."""
        for camera in self.cameras.values():
            camera.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop all threads; returns within about two seconds whatever a source does."""
        deadline = monotonic() + 1.5
        self._stop.set()
        self._wake.set()
        for camera in self.cameras.values():
            camera.request_stop()
        for camera in self.cameras.values():
            camera.join(max(0.1, deadline - monotonic()))
        if self._thread.is_alive():
            self._thread.join(max(0.1, deadline - monotonic()))

    def camera(self, camera_id: str) -> Camera:
        """The camera of that id.

        Raises:
            SignallingError: 404, with the ids there are.
        """
        if camera_id not in self.cameras:
            known = ", ".join(self.cameras)
            raise SignallingError(f"no camera {camera_id[:40]!r}; there are: {known}", 404)
        return self.cameras[camera_id]

    def _awake(self) -> None:
        self._wake.set()

    def _detect_for_ever(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            while not self._stop.is_set() and (batch := self._collect()):
                self._detect(batch)

    def _collect(self) -> list[tuple[Camera, Frame]]:
        """The newest waiting frame of each camera, at most ``max_batch``, in turn."""
        cameras = list(self.cameras.values())
        batch: list[tuple[Camera, Frame]] = []
        for offset in range(len(cameras)):
            position = (self._first + offset) % len(cameras)
            frame = cameras[position].pending.get(timeout_s=0)
            if frame is not None:
                batch.append((cameras[position], frame))
                if len(batch) == self._max_batch:
                    self._first = (position + 1) % len(cameras)
                    break
        return batch

    def _detect(self, batch: list[tuple[Camera, Frame]]) -> None:
        try:
            # Weak detections too: the tracker's second stage wants them, and decides what is shown.
            found = self.detector.detect([frame.picture for _, frame in batch], self.tracking.low_score)
        except Exception as error:  # a failing detector must not take the pictures away
            if self.fault is None:
                log.exception("the detector failed; pictures go on without boxes")
            self.fault = f"{type(error).__name__}: {error}"[:300]
            self._stop.wait(0.2)
            return
        self.fault = None
        self.batches += 1
        for (camera, frame), detections in zip(batch, found, strict=True):
            camera.detected(frame, detections)
