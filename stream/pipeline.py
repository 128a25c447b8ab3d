"""All cameras and the models that serve them: who belongs to whom, starting, changing and stopping.

    camera -- decode thread --> Latest[Frame] --> Batcher's detector threads --> tracker --> hub

Cameras can be added, changed and removed while the others run. Knows nothing of HTTP, WebRTC or torch.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from time import monotonic

from stream.batching import Batcher
from stream.camera import Camera
from stream.config import DEFAULT_DETECTOR, AppConfig, CameraConfig
from stream.detector import Detector
from stream.errors import SignallingError
from stream.sources import PUBLISHED
from stream.sources.inlet import Inlet

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 1.5


class Pipeline:
    """The cameras by name, and a batcher for each detector.

    Args:
        config: as it was read; later changes go through ``put`` and ``remove``.
        detector: of the cameras that name none.
        others: ``config.detectors``, loaded.
    """

    def __init__(
        self, config: AppConfig, detector: Detector, others: Mapping[str, Detector] | None = None
    ) -> None:
        settings = {DEFAULT_DETECTOR: config.detector, **config.detectors}
        self.batchers = {
            name: Batcher(name, settings[name], each)
            for name, each in {DEFAULT_DETECTOR: detector, **(others or {})}.items()
        }
        self.cameras: dict[str, Camera] = {}
        self._encoder = config.encoder
        self._changing = threading.Lock()  # one change at a time
        self._running = False
        for name, camera in config.cameras.items():
            self._add(name, camera)

    @property
    def detector(self) -> Detector:
        """The one of cameras that name none."""
        return self.batchers[DEFAULT_DETECTOR].detector

    @property
    def batches(self) -> int:
        """Runs of all models so far."""
        return sum(sum(batcher.batches.values()) for batcher in self.batchers.values())

    @property
    def run_seconds(self) -> float:
        """Seconds spent inside ``session.run`` so far, all threads together."""
        return sum(batcher.run_seconds for batcher in self.batchers.values())

    @property
    def alive(self) -> bool:
        """False: a detector thread has died, which only a new start mends."""
        return all(batcher.alive for batcher in self.batchers.values())

    @property
    def fault(self) -> str | None:
        """Why a model last failed; None while all work."""
        faults = {name: batcher.fault for name, batcher in self.batchers.items() if batcher.fault}
        if len(self.batchers) == 1:
            return faults.get(DEFAULT_DETECTOR)
        return "; ".join(f"detector {name}: {fault}" for name, fault in faults.items()) or None

    def start(self) -> None:
        """Start every camera; one that is down does not hold back the others."""
        with self._changing:
            self._running = True
            for camera in self.cameras.values():
                camera.start()
            for batcher in self.batchers.values():
                batcher.start()

    def stop(self) -> None:
        """Stop all threads; returns within about two seconds whatever a source does."""
        deadline = monotonic() + STOP_TIMEOUT_S
        with self._changing:
            self._running = False
            for camera in self.cameras.values():
                camera.request_stop()
            for batcher in self.batchers.values():
                batcher.request_stop()
            for camera in self.cameras.values():
                camera.join(max(0.0, deadline - monotonic()))
            for batcher in self.batchers.values():
                batcher.join(deadline)

    def put(self, camera_id: str, config: CameraConfig) -> Camera:
        """Add a camera, or give one another configuration: it ends, and begins anew. The others go on.

        Blocks for at most about two seconds while the old one ends; its viewers are to join again.
        """
        with self._changing:
            before = self.cameras.get(camera_id)
            camera = self._add(camera_id, config)  # in its place, so that there always is one
            if before is not None:
                self._end(before)  # first: both may want the same device
            if self._running:
                camera.start()
            return camera

    def remove(self, camera_id: str) -> None:
        """End a camera and forget it.

        Raises:
            SignallingError: 404, there is none of that name.
        """
        with self._changing:
            camera = self.camera(camera_id)
            self.cameras = {key: each for key, each in self.cameras.items() if each is not camera}
            self._end(camera)

    def camera(self, camera_id: str) -> Camera:
        """The camera of that id.

        Raises:
            SignallingError: 404, with the ids there are.
        """
        if camera_id not in self.cameras:
            known = ", ".join(self.cameras) or "none yet"
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

    def _add(self, name: str, config: CameraConfig) -> Camera:
        batcher = self.batchers[config.detector]
        camera = Camera(name, config, self._encoder, batcher.wake)
        # Replaced as a whole: others walk through it meanwhile.
        self.cameras = {**self.cameras, name: camera}
        batcher.add(camera)
        return camera

    def _end(self, camera: Camera) -> None:
        self.batchers[camera.config.detector].remove(camera)
        camera.request_stop()
        camera.join(STOP_TIMEOUT_S)
