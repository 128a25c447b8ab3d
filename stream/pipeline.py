"""The path of a frame: every camera's newest frame -> a detector thread -> that camera's tracker.

    camera -- decode thread --> Latest[Frame] --> detector thread (batches) --> tracker --> hub

On a GPU one detector thread batches the cameras. On CPU a batch is no faster than its pictures one
by one, and a run spread over cores wastes a third of them at its barriers, so there are several
threads with a run each. Results are handed over in the order in which the frames were taken: one that
is early is kept for whoever finishes the batch before it, and its thread goes on. A thread takes at
most one frame of each camera and begins where the last one left off, so that under overload no camera
starves. Knows nothing of HTTP, WebRTC or torch.
"""

from __future__ import annotations

import logging
import threading
from time import monotonic

from stream.camera import Camera
from stream.config import AppConfig
from stream.cores import usable_cores
from stream.detector import Detector
from stream.errors import SignallingError
from stream.frames import Detections, Frame
from stream.session import GPU_BATCH
from stream.sources import PUBLISHED
from stream.sources.inlet import Inlet
from stream.tracking import TrackerParameters

log = logging.getLogger(__name__)

MOST_WORKERS = 4
STOP_TIMEOUT_S = 1.5

Batch = list[tuple[Camera, Frame]]
Found = list[Detections | None]
"""The detections of each frame of a batch; None for one that the model failed on."""


class Pipeline:
    """All cameras and the one model that serves them.

    Attributes:
        detector: as given; its twins share its session.
        batches: runs of the model so far.
        fault: why the model last failed; None while it works.
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
        on_cpu = detector.device == "cpu"
        most = GPU_BATCH if detector.session.on_gpu else 1
        self._max_batch = config.detector.max_batch or most
        workers = min(MOST_WORKERS, max(1, usable_cores() // detector.threads)) if on_cpu else 1
        self._detectors = [detector, *(detector.twin() for _ in range(workers - 1))]
        self._threads = [
            threading.Thread(target=self._detect_for_ever, args=(each,), name=f"detect-{number}", daemon=True)
            for number, each in enumerate(self._detectors)
        ]
        self._stop = threading.Event()
        self._waiting = threading.Condition()  # guards all that follows
        self._first = 0  # the camera that is asked first
        self._taken = 0  # batches handed out
        self._delivered = 0  # batches whose results were handed over, in order
        self._early: dict[int, tuple[Batch, Found]] = {}  # results by batch, until it is their turn
        self._delivering = False  # a thread is at it, and takes along what is ready

    @property
    def run_seconds(self) -> float:
        """Seconds spent inside ``session.run`` so far, all threads together."""
        return sum(detector.run_seconds for detector in self._detectors)

    def start(self) -> None:
        """Start every camera; one that is down does not hold back the others."""
        for camera in self.cameras.values():
            camera.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop all threads; returns within about two seconds whatever a source does."""
        deadline = monotonic() + STOP_TIMEOUT_S
        self._stop.set()
        for camera in self.cameras.values():
            camera.request_stop()
        with self._waiting:
            self._waiting.notify_all()
        for camera in self.cameras.values():
            camera.join(max(0.0, deadline - monotonic()))
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - monotonic()))

    def camera(self, camera_id: str) -> Camera:
        """The camera of that id.

        Raises:
            SignallingError: 404, with the ids there are.
        """
        if camera_id not in self.cameras:
            known = ", ".join(self.cameras)
            raise SignallingError(f"no camera {camera_id[:40]!r}; there are: {known}", 404)
        return self.cameras[camera_id]

    def inlet(self, camera_id: str) -> Inlet:
        """Where the pictures of a publisher to that camera go.

        Raises:
            SignallingError: 404, there is no such camera; 409, it fetches its own pictures.
        """
        camera = self.camera(camera_id)
        if camera.inlet is None:
            open_to = [name for name, each in self.cameras.items() if each.inlet is not None]
            known = (
                f"expected one of: {', '.join(open_to)}" if open_to else f"none has the source {PUBLISHED}"
            )
            raise SignallingError(f"camera {camera_id!r} cannot be published to; {known}", 409)
        return camera.inlet

    def _awake(self) -> None:
        """A frame has come: one idle detector thread is enough to take it."""
        with self._waiting:
            self._waiting.notify()

    def _detect_for_ever(self, detector: Detector) -> None:
        while (taken := self._take()) is not None:
            number, batch = taken
            self._hand_over(number, batch, self._detect(detector, batch))

    def _hand_over(self, number: int, batch: Batch, found: Found) -> None:
        """Deliver what is next in order, as far as it is there; an early result waits, not its thread."""
        with self._waiting:
            self._early[number] = batch, found
            if self._delivering:
                return
            self._delivering = True
        while (following := self._next_in_order()) is not None:
            self._deliver(*following)

    def _next_in_order(self) -> tuple[Batch, Found] | None:
        with self._waiting:
            following = None if self._stop.is_set() else self._early.pop(self._delivered, None)
            self._delivering = following is not None
            if self._delivering:
                self._delivered += 1
                self._waiting.notify()
            return following

    def _deliver(self, batch: Batch, found: Found) -> None:
        """Hand results to their cameras; called by one thread at a time, in order."""
        self.batches += 1
        if None not in found:
            self.fault = None
        for (camera, frame), detections in zip(batch, found, strict=True):
            try:
                if detections is None:
                    camera.undetected(frame)
                else:
                    camera.detected(frame, detections)
            except Exception:  # one camera's fault must not end detection for the others
                log.exception("camera %s: tracking or showing a frame failed", camera.id)

    def _take(self) -> tuple[int, Batch] | None:
        """Wait for frames; their place in the order and the frames. None when stopped.

        At most twice as many batches are under way as there are threads.
        """
        with self._waiting:
            while not self._stop.is_set():
                room = self._taken - self._delivered < 2 * len(self._threads)
                if room and (batch := self._collect()):
                    self._taken += 1
                    return self._taken - 1, batch
                self._waiting.wait()
        return None

    def _collect(self) -> Batch:
        """The newest waiting frame of each camera, at most ``max_batch``, in turn."""
        cameras = list(self.cameras.values())
        batch: Batch = []
        for offset in range(len(cameras)):
            position = (self._first + offset) % len(cameras)
            frame = cameras[position].pending.get(timeout_s=0)
            if frame is not None:
                batch.append((cameras[position], frame))
                if len(batch) == self._max_batch:
                    self._first = (position + 1) % len(cameras)
                    break
        return batch

    def _detect(self, detector: Detector, batch: Batch) -> Found:
        try:
            # Weak detections too: the tracker's second stage wants them, and decides what is shown.
            return [*detector.detect([frame.picture for _, frame in batch], self.tracking.low_score)]
        except Exception as error:  # a failing model must not take the pictures away
            if len(batch) > 1:  # one camera's picture must not cost the others their boxes
                return [found for each in batch for found in self._detect(detector, [each])]
            if self.fault is None:
                log.exception("the detector failed; pictures go on without boxes")
            self.fault = f"{type(error).__name__}: {error}"[:300]
            self._stop.wait(0.2)
            return [None]
