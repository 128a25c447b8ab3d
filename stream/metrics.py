"""Prometheus metrics, read from the pipeline's own counters when they are scraped.

Nothing is registered at import and nothing is counted twice: the pipeline counts, this file names, by
https://prometheus.io/docs/practices/naming/ (base units, ``_total`` for what only grows). Cameras and detectors
may come and go between two scrapes. Knows nothing of HTTP.

``stage`` is where on its way a frame was: ``decode`` (left the decoder; dropped: the source made it and nobody
took it in time), ``detect`` (its objects became known; dropped: a newer one came first), ``encode`` (became a
picture for viewers; likewise), ``forward`` (went on to viewers as the camera sent it), ``send`` (was taken by a
viewer's connection, counted for each viewer; dropped: the viewer could not keep up).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import get_args

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from stream.batching import Batcher
from stream.camera import Camera, CameraStatus
from stream.connection import State
from stream.histogram import AGE_BOUNDS_S, Histogram, merged
from stream.pipeline import Pipeline

Counted = Callable[[CameraStatus], float]


class PipelineCollector(Collector):
    """Turns a pipeline's counters into metric families."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def collect(self) -> Iterable[Metric]:
        cameras = list(self._pipeline.cameras.values())
        statuses = [camera.status() for camera in cameras]
        yield InfoMetricFamily("lookout_build", "What runs.", value={"version": version("lookout")})
        yield from _frames(cameras, statuses)
        yield _ages(cameras)
        yield _states(statuses)
        yield from _counts(statuses)
        yield from _gauges(statuses)
        yield from _runs(self._pipeline.batchers)


def _frames(cameras: Iterable[Camera], statuses: Iterable[CameraStatus]) -> Iterable[Metric]:
    went_on = CounterMetricFamily("lookout_frames", "Frames that passed a stage.", labels=["camera", "stage"])
    dropped = CounterMetricFamily(
        "lookout_frames_dropped", "Frames that were given up at a stage.", labels=["camera", "stage"]
    )
    sent = CounterMetricFamily(
        "lookout_sent_bytes", "Payload of the frames sent, without headers and repeats.", labels=["camera"]
    )
    for camera, status in zip(cameras, statuses, strict=True):
        tallies = [audience.tally for audience in camera.audiences]
        stages: dict[str, tuple[float, float | None]] = {
            "decode": (status.decoded, status.missed),
            "detect": (status.detected, status.dropped),
            "encode": (status.encoded, status.display_dropped),
            "forward": (status.forwarded, None),
            "send": (sum(tally.units for tally in tallies), sum(tally.dropped for tally in tallies)),
        }
        for stage, (passed, lost) in stages.items():
            went_on.add_metric([camera.id, stage], passed)
            if lost is not None:
                dropped.add_metric([camera.id, stage], lost)
        sent.add_metric([camera.id], sum(tally.bytes for tally in tallies))
    return went_on, dropped, sent


def _ages(cameras: Iterable[Camera]) -> Metric:
    ages = HistogramMetricFamily(
        "lookout_frame_age_seconds",
        "Since its capture, as a frame passed a stage.",
        labels=["camera", "stage"],
    )
    for camera in cameras:
        published = merged((audience.publish_ages for audience in camera.audiences), AGE_BOUNDS_S)
        _add(ages, [camera.id, "detect"], camera.detect_ages)
        _add(ages, [camera.id, "send"], published)
    return ages


def _states(statuses: Iterable[CameraStatus]) -> Metric:
    states = GaugeMetricFamily(
        "lookout_camera_state", "1 for the state that a camera is in.", labels=["camera", "state"]
    )
    for status in statuses:
        for state in get_args(State):
            states.add_metric([status.id, state], float(status.state == state))
    return states


def _counts(statuses: list[CameraStatus]) -> Iterable[Metric]:
    counters: dict[str, tuple[str, Counted]] = {
        "reconnects": ("Times that a source failed and was tried again.", lambda status: status.reconnects),
        "stalls": ("Times that a source fell silent.", lambda status: status.stalls),
        "bad_packets": ("Packets that could not be decoded.", lambda status: status.bad_packets),
    }
    for name, (text, value) in counters.items():
        counter = CounterMetricFamily(f"lookout_{name}", text, labels=["camera"])
        for status in statuses:
            counter.add_metric([status.id], value(status))
        yield counter


def _gauges(statuses: list[CameraStatus]) -> Iterable[Metric]:
    gauges: dict[str, tuple[str, Counted]] = {
        "viewers": ("Viewers connected.", lambda status: status.viewers),
        "objects": ("Objects tracked in the newest frame.", lambda status: status.objects),
        "picture_age_seconds": (
            "Since the newest picture came.",
            lambda status: (status.last_picture_age_ms or 0.0) / 1000,
        ),
        "detection_age_seconds": (
            "Since the newest frame with known objects was captured.",
            lambda status: (status.frame_age_ms or 0.0) / 1000,
        ),
    }
    for name, (text, value) in gauges.items():
        gauge = GaugeMetricFamily(f"lookout_{name}", text, labels=["camera"])
        for status in statuses:
            gauge.add_metric([status.id], value(status))
        yield gauge


def _runs(batchers: Mapping[str, Batcher]) -> Iterable[Metric]:
    labels = ["detector"]
    seconds = HistogramMetricFamily("lookout_inference_seconds", "Of one run of the model.", labels=labels)
    pictures = HistogramMetricFamily("lookout_batch_pictures", "In one run of the model.", labels=labels)
    faults = CounterMetricFamily("lookout_detector_faults", "Runs of the model that failed.", labels=labels)
    device = InfoMetricFamily("lookout_detector", "What each detector runs, and where.", labels=labels)
    swaps = CounterMetricFamily(
        "lookout_detector_swaps", "Times that another model took over.", labels=labels
    )
    for name, batcher in batchers.items():
        runs, detector = batcher.runs, batcher.detector
        _add(seconds, [name], runs.seconds)
        _add(pictures, [name], runs.pictures)
        faults.add_metric([name], float(runs.faults))
        swaps.add_metric([name], float(batcher.swaps))
        device.add_metric([name], {"device": detector.device, "family": detector.spec.family})
    return seconds, pictures, faults, swaps, device


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    family.add_metric(labels, histogram.cumulative(), histogram.sum)


def exposition(pipeline: Pipeline) -> bytes:
    """The text of ``/metrics``; the process's own (memory, CPU, descriptors) are there on Linux."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(PipelineCollector(pipeline))
    return generate_latest(registry)
