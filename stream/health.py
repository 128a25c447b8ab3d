"""``Health``: whether this process should be restarted, and whether it should be sent anybody.

Knows nothing of HTTP or systemd, which both ask it.
"""

from __future__ import annotations

from stream.pipeline import Pipeline


class Health:
    """Two questions that orchestrators ask.

    ``alive``: restarting would help if not. Only a dead detector thread is such a fault, and an event loop that
    hangs, which cannot answer. Cameras that are down are not: their host would be restarted for a pulled plug.

    ``ready``: viewers may be sent here. The model is loaded (or there would be no pipeline), and a camera is live
    or every one was tried once: with all of them down there is still a page that says why. Once ready it stays
    so, whatever cameras do, until it drains: pages and API are there, and taking the only instance away from its
    viewers helps nobody. A model that fails is no reason either, as pictures go on without boxes; ``/api/app``
    and ``lookout_detector_faults_total`` tell of it.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.draining = False
        self._pipeline = pipeline
        self._settled = False

    @property
    def alive(self) -> bool:
        return self._pipeline.alive

    @property
    def ready(self) -> bool:
        if not self._settled:
            cameras = [camera.status() for camera in list(self._pipeline.cameras.values())]
            tried = all(camera.state != "connecting" or camera.reason is not None for camera in cameras)
            self._settled = tried or any(camera.state == "live" for camera in cameras)
        return self._settled and not self.draining
