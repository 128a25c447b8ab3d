"""One model and the cameras it serves: the newest frame of each, in batches, to the detector threads.

On a GPU one detector thread batches the cameras. On CPU a batch is no faster than its pictures one
by one, and a run spread over cores wastes a third of them at its barriers, so there are several
threads with a run each. Results are handed over in the order in which the frames were taken: one that
is early is kept for whoever finishes the batch before it, and its thread goes on.

The camera that was served longest ago comes first, so under overload every camera with a new frame gets
its turn before any gets two. Knows nothing of HTTP, WebRTC or how cameras get their pictures.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from time import monotonic

from stream.camera import Camera
from stream.config import DetectorConfig
from stream.cores import usable_cores
from stream.detector import Detector
from stream.frames import Detections, Frame
from stream.tracking import TrackerParameters

log = logging.getLogger(__name__)

MOST_WORKERS = 4

Batch = list[tuple[Camera, Frame]]
Found = Sequence[Detections | None]
"""The detections of each frame of a batch; None for one that the model failed on."""


class Batcher:
    """The detector threads of one model. Cameras come and go while it runs.

    Attributes:
        name: of the detector in the configuration.
        detector: as given; its twins share its session.
        tracking: what trackers of its detections work with.
        batches: runs of the model so far, by the pictures in each.
        fault: why the model last failed; None while it works.
    """

    def __init__(self, name: str, config: DetectorConfig, detector: Detector) -> None:
        self.name = name
        self.detector = detector
        self.tracking = TrackerParameters.for_threshold(config.score_threshold)
        self.batches: dict[int, int] = {}
        self.fault: str | None = None
        on_cpu = detector.device == "cpu"
        self._max_batch = config.max_batch or detector.session.most_pictures
        self._max_wait_s = (config.max_wait_ms or 0.0) / 1000
        workers = min(MOST_WORKERS, max(1, usable_cores() // detector.threads)) if on_cpu else 1
        self._detectors = [detector, *(detector.twin() for _ in range(workers - 1))]
        self._threads = [
            threading.Thread(
                target=self._detect_for_ever, args=(each,), name=f"detect-{name}-{number}", daemon=True
            )
            for number, each in enumerate(self._detectors)
        ]
        self._stop = threading.Event()
        self._waiting = threading.Condition()  # guards all that follows
        self._cameras: list[Camera] = []  # the one that was served longest ago first
        self._taken = 0  # batches handed out
        self._delivered = 0  # batches whose results were handed over, in order
        self._early: dict[int, tuple[Batch, Found]] = {}  # results by batch, until it is their turn
        self._delivering = False  # a thread is at it, and takes along what is ready

    @property
    def run_seconds(self) -> float:
        """Seconds spent inside ``session.run`` so far, all threads together."""
        return sum(detector.run_seconds for detector in self._detectors)

    @property
    def alive(self) -> bool:
        """False: one of its threads has died."""
        return self._stop.is_set() or all(thread.is_alive() or not thread.ident for thread in self._threads)

    def add(self, camera: Camera) -> None:
        """Serve another camera, whose ``wake`` is this batcher's."""
        with self._waiting:
            self._cameras.insert(0, camera)
            self._waiting.notify()

    def remove(self, camera: Camera) -> None:
        """Take no more of its frames; one that is under way is still delivered."""
        with self._waiting:
            self._cameras.remove(camera)

    def wake(self) -> None:
        """A frame has come: one idle detector thread is enough to take it."""
        with self._waiting:
            self._waiting.notify()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def request_stop(self) -> None:
        self._stop.set()
        with self._waiting:
            self._waiting.notify_all()

    def join(self, deadline: float) -> None:
        """Wait for its threads until ``deadline``, in monotonic seconds."""
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - monotonic()))

    def _detect_for_ever(self, detector: Detector) -> None:
        while (taken := self._take()) is not None:
            number, batch = taken
            self._hand_over(number, batch, self._detect(detector, batch))

    # Taking frames

    def _take(self) -> tuple[int, Batch] | None:
        """Wait for frames; their place in the order and the frames. None when stopped.

        At most twice as many batches are under way as there are threads.
        """
        with self._waiting:
            while not self._stop.is_set():
                wait_s = None
                if self._taken - self._delivered < 2 * len(self._threads):
                    wait_s = self._collecting_s()
                    if wait_s == 0 and (batch := self._collect()):
                        self._taken += 1
                        return self._taken - 1, batch
                self._waiting.wait(wait_s or None)
        return None

    def _collecting_s(self) -> float | None:
        """How long to wait for more frames before running those that are there. None: there are none."""
        waiting = [frame for camera in self._cameras if (frame := camera.pending.item) is not None]
        if not waiting:
            return None
        if not self._max_wait_s or len(waiting) >= min(self._max_batch, self._expected):
            return 0.0
        since_s = monotonic() - min(frame.captured_at for frame in waiting)
        return max(0.0, self._max_wait_s - since_s)

    @property
    def _expected(self) -> int:
        """Of so many cameras a frame may come soon; one that is down must not keep the others waiting."""
        return sum(not camera.down for camera in self._cameras)

    def _collect(self) -> Batch:
        """The newest waiting frame of each camera, at most ``max_batch``; who is served goes to the end."""
        batch: Batch = []
        for camera in self._cameras:
            frame = camera.pending.get(timeout_s=0)
            if frame is not None:
                batch.append((camera, frame))
                if len(batch) == self._max_batch:
                    break
        for camera, _ in batch:
            self._cameras.remove(camera)
            self._cameras.append(camera)
        return batch

    # Running the model

    def _detect(self, detector: Detector, batch: Batch) -> Found:
        pictures = [frame.picture for _, frame in batch]
        regions = [camera.regions for camera, _ in batch]
        try:
            # Weak detections too: the tracker's second stage wants them, and decides what is shown.
            found = detector.detect(pictures, self.tracking.low_score, regions)
        except Exception as error:  # a failing model must not take the pictures away
            if len(batch) > 1:  # one camera's picture must not cost the others their boxes
                return [found for each in batch for found in self._detect(detector, [each])]
            if self.fault is None:
                log.exception("detector %s failed; pictures go on without boxes", self.name)
            self.fault = f"{type(error).__name__}: {error}"[:300]
            self._stop.wait(0.2)
            return [None]
        return found

    # Handing results over

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
        self.batches[len(batch)] = self.batches.get(len(batch), 0) + 1
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
