"""The exposition, read back by Prometheus's own parser, over a real pipeline with a viewer."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from stream.config import AppConfig, CameraConfig
from stream.detector import Detector
from stream.histogram import AGE_BOUNDS_S, Histogram, merged
from stream.metrics import exposition
from stream.pipeline import Pipeline
from stream.webrtc.rendition import Rendition
from tests.stream.watching import Collector, until

# https://prometheus.io/docs/practices/naming/
NAME = re.compile(r"(lookout|process)_[a-z0-9]+(_[a-z0-9]+)*")
UNITLESS = {"lookout_viewers", "lookout_objects", "lookout_camera_state", "lookout_batch_pictures"}
UNITS = ("_seconds", "_bytes", "_info", "_fds")


@pytest.fixture
def pipeline(detector: Detector) -> Iterator[Pipeline]:
    config = AppConfig(
        cameras={
            "demo": CameraConfig(source="demo"),
            "down": CameraConfig(source="rtsp://127.0.0.1:1/none"),
        }
    )
    pipeline = Pipeline(config, detector)
    pipeline.start()
    yield pipeline
    pipeline.stop()


def families(pipeline: Pipeline) -> dict[str, Metric]:
    parsed = text_string_to_metric_families(exposition(pipeline).decode())
    return {family.name: family for family in parsed}


def value(found: dict[str, Metric], name: str, **labels: str) -> float:
    base = re.sub("_(total|bucket|count|sum)$", "", name)
    (sample,) = [
        sample
        for sample in found[base].samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return sample.value


async def test_what_happened_is_counted_by_camera_and_stage(pipeline: Pipeline) -> None:
    viewer, hub = Collector(), pipeline.cameras["demo"].hub(Rendition("h264", "drawn", None))
    hub.join(viewer)
    await until(lambda: len(viewer.units) > 10, 20)
    hub.leave(viewer)
    found = families(pipeline)

    def frames(stage: str) -> float:
        return value(found, "lookout_frames_total", camera="demo", stage=stage)

    assert frames("decode") >= 10
    assert frames("encode") >= 10  # a picture that greets who joins may be encoded twice
    assert frames("detect") > 0
    assert frames("send") >= 10, "counted although the viewer is gone"
    assert value(found, "lookout_sent_bytes_total", camera="demo") > 1000
    assert value(found, "lookout_frames_total", camera="down", stage="decode") == 0
    for stage in ("decode", "detect", "encode", "send"):
        assert value(found, "lookout_frames_dropped_total", camera="demo", stage=stage) >= 0
    assert value(found, "lookout_reconnects_total", camera="down") >= 1
    states = {
        (sample.labels["camera"], sample.labels["state"]): sample.value
        for sample in found["lookout_camera_state"].samples
    }
    assert states["demo", "live"] == 1
    assert states["down", "live"] == 0
    assert sum(states.values()) == 2, "each camera is in one state"
    assert value(found, "lookout_detector_faults_total", detector="default") == 0
    assert value(found, "process_resident_memory_bytes") > 1e7
    for name in ("process_open_fds", "process_cpu_seconds_total", "process_start_time_seconds"):
        assert value(found, name) > 0


async def test_histograms_count_every_frame_once(pipeline: Pipeline) -> None:
    await until(lambda: pipeline.cameras["demo"].status().detected > 5, 20)
    pipeline.stop()
    found, status = families(pipeline), pipeline.cameras["demo"].status()
    labels = {"camera": "demo", "stage": "detect"}
    assert value(found, "lookout_frame_age_seconds_count", **labels) == status.detected
    assert 0 < value(found, "lookout_frame_age_seconds_sum", **labels) < 5 * status.detected
    buckets = [
        sample.value
        for sample in found["lookout_frame_age_seconds"].samples
        if sample.name.endswith("_bucket") and labels.items() <= sample.labels.items()
    ]
    assert buckets == sorted(buckets)
    assert buckets[-1] == status.detected
    batches = value(found, "lookout_batch_pictures_count", detector="default")
    assert value(found, "lookout_inference_seconds_count", detector="default") == batches >= status.detected
    assert value(found, "lookout_batch_pictures_sum", detector="default") >= batches


def test_names_are_by_the_guide(pipeline: Pipeline) -> None:
    found = families(pipeline)
    assert "lookout_build_info" in found
    for name, family in found.items():
        if name.startswith("process_"):
            continue
        assert NAME.fullmatch(name), name
        assert family.documentation
        assert not re.search("camera|detector", family.documentation.partition(" ")[0])
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        elif name not in UNITLESS:
            assert name.endswith(UNITS), f"{name} says no unit"


def test_cameras_come_and_go_between_two_scrapes(pipeline: Pipeline) -> None:
    pipeline.remove("down")
    pipeline.put("new", CameraConfig(source="whip"))
    text = exposition(pipeline).decode()
    assert 'camera="down"' not in text
    assert 'camera="demo"' in text
    assert re.search(r'lookout_camera_state\{camera="new",state="(connecting|waiting)"\} 1\.0', text)


def test_a_histogram_counts_by_inclusive_bounds() -> None:
    one, other = Histogram((0.1, 1)), Histogram((0.1, 1))
    for seconds in (0.05, 0.1, 0.5, 1.0, 2.0):
        one.observe(seconds)
    other.observe(0.2)
    assert one.cumulative() == [("0.1", 2), ("1.0", 4), ("+Inf", 5)]
    both = merged([one, other], (0.1, 1))
    assert both.cumulative()[-1] == ("+Inf", 6)
    assert both.sum == pytest.approx(3.85)
    assert merged([], AGE_BOUNDS_S).cumulative()[-1] == ("+Inf", 0)
