"""Prometheus metrics, read from the pipeline's own counters when they are scraped.

Nothing is registered at import and nothing is counted twice: the pipeline counts, this file
names. Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from stream.camera import CameraStatus
from stream.pipeline import Pipeline


class PipelineCollector(Collector):
    """Turns a pipeline's counters into metric families, one sample a camera."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def collect(self) -> Iterable[Metric]:
        statuses = [camera.status() for camera in self._pipeline.cameras.values()]
        counters = {
            "frames_decoded": ("Frames that left the decoder.", "decoded"),
            "frames_missed": ("Frames that the source made and nobody took in time.", "missed"),
            "bad_packets": ("Packets that could not be decoded.", "bad_packets"),
            "frames_dropped": ("Frames overwritten by a newer one before detection.", "dropped"),
            "frames_detected": ("Frames that went through the detector.", "detected"),
            "reconnects": ("Times the source failed and was tried again.", "reconnects"),
            "units_encoded": ("Encoded pictures handed to viewers.", "encoded"),
            "units_forwarded": ("The camera's own pictures handed to viewers.", "forwarded"),
            "pictures_dropped": ("Pictures overwritten by a newer one before encoding.", "display_dropped"),
        }
        for name, (text, attribute) in counters.items():
            counter = CounterMetricFamily(f"lookout_{name}", text, labels=["camera"])
            for status in statuses:
                counter.add_metric([status.id], float(getattr(status, attribute)))
            yield counter
        gauges: dict[str, tuple[str, Callable[[CameraStatus], float]]] = {
            "up": ("1 while the camera is live.", lambda status: status.state == "live"),
            "fps": ("Frames a second from the camera.", lambda status: status.fps),
            "detect_fps": ("Frames a second through the detector.", lambda status: status.detect_fps),
            "frame_age_seconds": (
                "Time since the newest frame with known objects was captured.",
                lambda status: (status.frame_age_ms or 0.0) / 1000,
            ),
            "viewers": ("Viewers connected.", lambda status: status.viewers),
            "objects": ("Objects tracked in the newest frame.", lambda status: status.objects),
        }
        for name, (text, value) in gauges.items():
            gauge = GaugeMetricFamily(f"lookout_{name}", text, labels=["camera"])
            for status in statuses:
                gauge.add_metric([status.id], value(status))
            yield gauge
        yield CounterMetricFamily(
            "lookout_inference_seconds",
            "Seconds inside session.run.",
            value=self._pipeline.run_seconds,
        )
        yield CounterMetricFamily(
            "lookout_batches", "Calls of the detector.", value=float(self._pipeline.batches)
        )


def exposition(pipeline: Pipeline) -> bytes:
    """The text of ``/metrics``."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(PipelineCollector(pipeline))
    return generate_latest(registry)
