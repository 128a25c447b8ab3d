"""One model and the cameras it serves: the newest frame of each, in batches, to the detector threads.

On a GPU one detector thread batches the cameras. On CPU a batch is no faster than its pictures one
by one, and a run spread over cores wastes a third of them at its barriers, so there are several
threads with a run each. Results are handed over in the order in which the frames were taken: one that
is early is kept for whoever finishes the batch before it, and its thread goes on.

Another model takes over between two batches (``exchange``): those that the old one has begun are still handed
over, in their order, so that what a camera is told changes models once.

The camera that was served longest ago comes first, so under overload every camera with a new frame gets
its turn before any gets two. Knows nothing of HTTP, WebRTC or how cameras get their pictures.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from stream.camera import Camera
from stream.config import DetectorConfig
from stream.cores import usable_cores
from stream.detector import Detector, Runs
from stream.frames import Detections, Frame
from stream.tracking import TrackerParameters

log = logging.getLogger(__name__)

MOST_WORKERS = 4
# For the run that an exchanged model has begun. What takes longer is not kept to go back to.
LAST_RUN_S = 10.0

Batch = list[tuple[Camera, Frame]]
Found = Sequence[Detections | None]
"""The detections of each frame of a batch; None for one that the model failed on."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model and what it was loaded with."""

    config: DetectorConfig
    detector: Detector


@dataclass(frozen=True, slots=True)
class _Turn:
    """A batch, its place in the order, and what trackers are to work with."""

    number: int
    batch: Batch
    tracking: TrackerParameters


class _Crew:
    """The threads of one model, each with a detector; all share its session."""

    def __init__(self, name: str, model: Loaded, work: Callable[[_Crew, Detector], None]) -> None:
        detector = model.detector
        on_cpu = detector.device == "cpu"
        workers = min(MOST_WORKERS, max(1, usable_cores() // detector.threads)) if on_cpu else 1
        detectors = [detector, *(detector.twin() for _ in range(workers - 1))]
        for each in detectors:
            each.runs = Runs()
        self.runs = [each.runs for each in detectors]
        self.threads = [
            threading.Thread(target=work, args=(self, each), name=f"detect-{name}-{number}", daemon=True)
            for number, each in enumerate(detectors)
        ]
        self.since = monotonic()
        self.tune(model)

    def tune(self, model: Loaded) -> None:
        """Go by these settings from the next batch on."""
        self.model = model
        self.tracking = TrackerParameters.for_threshold(model.config.score_threshold)
        self.max_batch = model.config.max_batch or model.detector.session.most_pictures
        self.max_wait_s = (model.config.max_wait_ms or 0.0) / 1000

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def join(self, deadline: float) -> bool:
        """Wait for its threads until ``deadline``, in monotonic seconds. False: one still runs."""
        for thread in self.threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - monotonic()))
        return not any(thread.is_alive() for thread in self.threads)


class Batcher:
    """The detector threads of one model at a time. Cameras come and go while it runs.

    Attributes:
        name: of the detector in the configuration.
        batches: runs of its models so far, by the pictures in each.
        fault: why the model last failed; None while it works.
        previous: the model before this one, still loaded.
        swaps: how often another model took over.
    """

    def __init__(self, name: str, config: DetectorConfig, detector: Detector) -> None:
        self.name = name
        self.batches: dict[int, int] = {}
        self.fault: str | None = None
        self.previous: Loaded | None = None
        self.swaps = 0
        self._stop = threading.Event()
        self._waiting = threading.Condition()  # guards all that follows
        self._started = False
        self._crew = _Crew(name, Loaded(config, detector), self._detect_for_ever)
        self._past = [Runs()]  # of models that ran before
        self._cameras: list[Camera] = []  # the one that was served longest ago first
        self._taken = 0  # batches handed out
        self._delivered = 0  # batches whose results were handed over, in order
        self._early: dict[int, tuple[_Turn, Found]] = {}  # results by batch, until it is their turn
        self._delivering = False  # a thread is at it, and takes along what is ready

    @property
    def model(self) -> Loaded:
        """What runs from the next batch on."""
        return self._crew.model

    @property
    def detector(self) -> Detector:
        """As given; its twins share its session."""
        return self._crew.model.detector

    @property
    def since(self) -> float:
        """When it took over, in monotonic seconds."""
        return self._crew.since

    @property
    def tracking(self) -> TrackerParameters:
        """What trackers of its detections work with."""
        return self._crew.tracking

    @property
    def runs(self) -> Runs:
        """Of all the models that it ran so far, all threads together."""
        with self._waiting:
            return Runs.summed([*self._past, *self._crew.runs])

    @property
    def run_seconds(self) -> float:
        """Seconds spent inside ``session.run`` so far, all threads together."""
        return self.runs.seconds.sum

    @property
    def alive(self) -> bool:
        """False: one of its threads has died."""
        return self._stop.is_set() or all(each.is_alive() or not each.ident for each in self._crew.threads)

    def exchange(self, model: Loaded) -> None:
        """Run this model from the next batch on, or the same one with other settings.

        Blocks until the old one's threads have ended; to be called by one thread at a time.
        """
        if model.detector is self.detector:
            with self._waiting:
                self._crew.tune(model)
                self._waiting.notify_all()
            return
        crew = _Crew(self.name, model, self._detect_for_ever)
        with self._waiting:
            old, self._crew = self._crew, crew
            self._past += old.runs
            self.fault, self.swaps = None, self.swaps + 1
            if self._started:
                crew.start()
            self._waiting.notify_all()  # and so the old one's threads end
        ended = old.join(monotonic() + LAST_RUN_S)
        self.previous = old.model if ended else None
        with self._waiting:
            self._past = [Runs.summed(self._past)]

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
        with self._waiting:
            self._started = True
            self._crew.start()

    def request_stop(self) -> None:
        self._stop.set()
        with self._waiting:
            self._waiting.notify_all()

    def join(self, deadline: float) -> None:
        """Wait for its threads until ``deadline``, in monotonic seconds."""
        self._crew.join(deadline)

    def _detect_for_ever(self, crew: _Crew, detector: Detector) -> None:
        while (turn := self._take(crew)) is not None:
            self._hand_over(turn, self._detect(detector, turn.batch, turn.tracking.low_score))

    # Taking frames

    def _take(self, crew: _Crew) -> _Turn | None:
        """Wait for frames. None when stopped, or when another crew has taken over.

        At most twice as many batches are under way as there are threads.
        """
        with self._waiting:
            while not self._stop.is_set() and crew is self._crew:
                wait_s = None
                if self._taken - self._delivered < 2 * len(crew.threads):
                    wait_s = self._collecting_s()
                    if wait_s == 0 and (batch := self._collect()):
                        self._taken += 1
                        return _Turn(self._taken - 1, batch, crew.tracking)
                self._waiting.wait(wait_s or None)
        return None

    def _collecting_s(self) -> float | None:
        """How long to wait for more frames before running those that are there. None: there are none."""
        waiting = [frame for camera in self._cameras if (frame := camera.pending.item) is not None]
        if not waiting:
            return None
        crew = self._crew
        if not crew.max_wait_s or len(waiting) >= min(crew.max_batch, self._expected):
            return 0.0
        since_s = monotonic() - min(frame.captured_at for frame in waiting)
        return max(0.0, crew.max_wait_s - since_s)

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
                if len(batch) == self._crew.max_batch:
                    break
        for camera, _ in batch:
            self._cameras.remove(camera)
            self._cameras.append(camera)
        return batch

    # Running the model

    def _detect(self, detector: Detector, batch: Batch, low_score: float) -> Found:
        pictures = [frame.picture for _, frame in batch]
        regions = [camera.regions for camera, _ in batch]
        try:
            # Weak detections too: the tracker's second stage wants them, and decides what is shown.
            found = detector.detect(pictures, low_score, regions)
        except Exception as error:  # a failing model must not take the pictures away
            if len(batch) > 1:  # one camera's picture must not cost the others their boxes
                return [found for each in batch for found in self._detect(detector, [each], low_score)]
            if self.fault is None:
                log.exception("detector %s failed; pictures go on without boxes", self.name)
            self.fault = f"{type(error).__name__}: {error}"[:300]
            self._stop.wait(0.2)
            return [None]
        return found

    # Handing results over

    def _hand_over(self, turn: _Turn, found: Found) -> None:
        """Deliver what is next in order, as far as it is there; an early result waits, not its thread."""
        with self._waiting:
            self._early[turn.number] = turn, found
            if self._delivering:
                return
            self._delivering = True
        while (following := self._next_in_order()) is not None:
            self._deliver(*following)

    def _next_in_order(self) -> tuple[_Turn, Found] | None:
        with self._waiting:
            following = None if self._stop.is_set() else self._early.pop(self._delivered, None)
            self._delivering = following is not None
            if self._delivering:
                self._delivered += 1
                self._waiting.notify()
            return following

    def _deliver(self, turn: _Turn, found: Found) -> None:
        """Hand results to their cameras; called by one thread at a time, in order."""
        batch = turn.batch
        self.batches[len(batch)] = self.batches.get(len(batch), 0) + 1
        if None not in found:
            self.fault = None
        for (camera, frame), detections in zip(batch, found, strict=True):
            try:
                if detections is None:
                    camera.undetected(frame)
                else:
                    camera.detected(frame, detections, turn.tracking)
            except Exception:  # one camera's fault must not end detection for the others
                log.exception("camera %s: tracking or showing a frame failed", camera.id)
