"""Who is served when: fairness, deadlines, and cameras that come and go."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from av import VideoFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.batching import Batcher
from stream.camera import Camera
from stream.config import AppConfig, CameraConfig, DetectorConfig, EncoderConfig
from stream.detector import Detector
from stream.errors import SignallingError
from stream.frames import Frame
from stream.pipeline import Pipeline
from stream.rate import Throttle
from stream.webrtc.rendition import Rendition
from tests.stream.test_pipeline import wait_until

PICTURE = VideoFrame(320, 240, "yuv420p")


def batcher_of(detector: Detector, **settings: float) -> Batcher:
    return Batcher("default", DetectorConfig.model_validate(settings), detector)


def camera_of(name: str, batcher: Batcher) -> Camera:
    """One that is never started: the test gives it its frames."""
    config = CameraConfig(source="synthetic:320x240@30")
    camera = Camera(name, config, EncoderConfig(), batcher.wake)
    batcher.add(camera)
    return camera


def frame_of(index: int) -> Frame:
    return Frame(PICTURE, index, index / 30, time.monotonic())


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 7),
    max_batch=st.integers(1, 5),
    arrivals=st.lists(st.sets(st.integers(0, 6)), min_size=1, max_size=60),
)
def test_nobody_gets_two_turns_while_another_waits(
    detector: Detector, count: int, max_batch: int, arrivals: list[set[int]]
) -> None:
    """Whatever frames come when: a camera whose frame waits is passed over at most once by each other."""
    batcher = batcher_of(detector, max_batch=max_batch)
    cameras = [camera_of(str(number), batcher) for number in range(count)]
    turns_since: dict[Camera, Counter[Camera]] = {}
    for index, those in enumerate(arrivals):
        for number in those & set(range(count)):
            cameras[number].pending.put(frame_of(index))
            turns_since.setdefault(cameras[number], Counter())
        served = [camera for camera, _ in batcher._collect()]
        assert len(served) == len(set(served)) == min(max_batch, len(turns_since))
        for camera in served:
            del turns_since[camera]
        for passed_over in turns_since.values():
            passed_over.update(served)
            assert max(passed_over.values()) <= 1


def test_under_overload_every_camera_gets_the_same(detector: Detector) -> None:
    """Ten cameras, each with a new frame at every moment; what the detector can do goes round."""
    batcher = batcher_of(detector)
    cameras = [camera_of(str(number), batcher) for number in range(10)]
    batcher.start()
    stop = threading.Event()

    def film() -> None:
        index = 0
        while not stop.wait(0.001):
            for camera in cameras:
                camera.pending.put(frame_of(index))
            index += 1

    filming = threading.Thread(target=film)
    filming.start()
    try:
        wait_until(lambda: sum(camera.status().detected for camera in cameras) > 100)
    finally:
        stop.set()
        filming.join()
        batcher.request_stop()
        batcher.join(time.monotonic() + 5)
    served = [camera.status().detected for camera in cameras]
    assert max(served) - min(served) <= 2


def test_a_frame_waits_for_others_but_not_longer_than_told(detector: Detector) -> None:
    batcher = batcher_of(detector, max_batch=4, max_wait_ms=300)
    first, second = camera_of("first", batcher), camera_of("second", batcher)
    assert batcher._collecting_s() is None
    first.pending.put(frame_of(0))
    left_s = batcher._collecting_s()
    assert left_s is not None
    assert 0 < left_s <= 0.3
    second.pending.put(frame_of(0))
    assert batcher._collecting_s() == 0, "all cameras there are have come"
    batcher.remove(second)
    first.pending.get()
    first.pending.put(Frame(PICTURE, 1, 1 / 30, time.monotonic() - 1))
    assert batcher._collecting_s() == 0, "it is over time"


def test_a_camera_that_is_down_keeps_nobody_waiting(detector: Detector, tmp_path: Path) -> None:
    batcher = batcher_of(detector, max_batch=4, max_wait_ms=1000)
    first = camera_of("first", batcher)
    config = CameraConfig(source=str(tmp_path / "missing.mp4"))
    dead = Camera("dead", config, EncoderConfig(), batcher.wake)
    batcher.add(dead)
    first.pending.put(frame_of(0))
    assert batcher._collecting_s() != 0, "it may still come"
    dead.start()
    try:
        wait_until(lambda: dead.down)
        first.pending.put(frame_of(1))  # as fresh as the one that was waited with
        assert batcher._collecting_s() == 0
    finally:
        dead.request_stop()
        dead.join(5)


def test_frames_that_come_within_the_deadline_share_a_run(detector: Detector) -> None:
    batcher = batcher_of(detector, max_batch=4, max_wait_ms=1000)
    cameras = [camera_of(str(number), batcher) for number in range(3)]
    batcher.start()
    try:
        for camera in cameras:
            camera.pending.put(frame_of(0))
            time.sleep(0.02)
        wait_until(lambda: all(camera.status().detected for camera in cameras))
    finally:
        batcher.request_stop()
        batcher.join(time.monotonic() + 5)
    assert batcher.batches == {3: 1}


def test_cameras_come_change_and_go_while_others_run(detector: Detector) -> None:
    pipeline = Pipeline(AppConfig(cameras={"stays": CameraConfig(source="demo")}), detector)
    stays = pipeline.camera("stays")
    pipeline.start()
    try:
        wait_until(lambda: stays.status().detected > 2)
        threads = threading.active_count()
        came = pipeline.put("came", CameraConfig(source="synthetic:320x240@30"))
        wait_until(lambda: came.status().detected > 2)
        changed = pipeline.put("came", CameraConfig(source="synthetic:640x480@30"))
        assert changed is pipeline.camera("came") is not came
        wait_until(lambda: changed.status().detected > 2 and changed.status().width == 640)
        pipeline.remove("came")
        with pytest.raises(SignallingError, match="changed or removed"):
            changed.hub(Rendition("h264"))
        with pytest.raises(SignallingError, match="there are: stays"):
            pipeline.camera("came")
        wait_until(lambda: threading.active_count() <= threads)
        seen = stays.status()
        wait_until(lambda: stays.status().detected > seen.detected + 5)
        assert stays.status().reconnects == 0
        assert stays.status().missed == 0
    finally:
        pipeline.stop()


def test_cameras_of_several_detectors(detector: Detector, model: Path) -> None:
    config = AppConfig(
        cameras={
            "one": CameraConfig(source="demo"),
            "two": CameraConfig(source="demo", detector="second"),
        },
        detectors={"second": DetectorConfig(score_threshold=0.9)},
    )
    pipeline = Pipeline(config, detector, {"second": Detector(model, "cpu")})
    one, two = pipeline.camera("one"), pipeline.camera("two")
    pipeline.start()
    try:
        wait_until(lambda: one.status().detected > 5 and two.status().detected > 5)
    finally:
        pipeline.stop()
    assert set(pipeline.batchers) == {"default", "second"}
    for batcher, camera in zip(pipeline.batchers.values(), (one, two), strict=True):
        assert batcher.batches[1] >= camera.status().detected
        assert batcher.run_seconds > 0


@pytest.mark.parametrize(("camera_fps", "wanted"), [(25, 10), (30, 7.5), (25, 24), (10, 60), (29.97, 1)])
def test_a_rate_is_kept_on_average(camera_fps: float, wanted: float) -> None:
    throttle = Throttle(wanted)
    seconds = 20
    taken = sum(throttle.is_due(index / camera_fps) for index in range(round(seconds * camera_fps)))
    assert taken == pytest.approx(seconds * min(camera_fps, wanted), abs=1)


def test_what_a_pause_cost_is_not_made_up_for() -> None:
    throttle = Throttle(10)
    assert throttle.is_due(0)
    times = 60 + np.arange(25) / 25  # nothing came for a minute
    assert sum(throttle.is_due(float(time_s)) for time_s in times) <= 11


def test_a_limited_camera_is_detected_no_more_often(detector: Detector) -> None:
    camera = CameraConfig(source="synthetic:320x240@30", detect_fps=5)
    pipeline = Pipeline(AppConfig(cameras={"one": camera}), detector)
    pipeline.start()
    try:
        wait_until(lambda: pipeline.camera("one").status().decoded >= 60)
        status = pipeline.camera("one").status()
    finally:
        pipeline.stop()
    assert 2 <= status.detected <= status.decoded * 5 / 30 + 2
