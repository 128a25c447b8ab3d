"""The path of a frame through the real pipeline: complete, in order, and one camera's business its own."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import onnx
import pytest
from av import VideoFrame
from onnx import TensorProto, helper

from export.artifact import ModelSpec
from stream.bench.drain import Drain, watched
from stream.config import AppConfig, CameraConfig, DetectorConfig
from stream.cores import usable_cores
from stream.detector import Detector
from stream.frames import Detections, Frame, Tracks
from stream.pipeline import Pipeline
from stream.sources import SourceOptions, open_source
from stream.tracking import Tracker, TrackerParameters, View
from stream.webrtc.rendition import Rendition


def wait_until(condition, timeout_s: float = 30) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_lossless_detects_every_frame_once_and_in_order(bikes: Path, detector: Detector) -> None:
    config = AppConfig(
        cameras={"clip": CameraConfig(source=str(bikes), pace="lossless", overlay="exact", loop=False)}
    )
    pipeline = Pipeline(config, detector)
    camera = pipeline.cameras["clip"]
    indices: list[int] = []
    update = camera.detected

    def note(frame: Frame, detections: Detections, tracking: TrackerParameters) -> Tracks:
        indices.append(frame.index)
        return update(frame, detections, tracking)

    camera.detected = note  # type: ignore[method-assign]
    pipeline.start()
    try:
        assert camera.finished.wait(60)
        wait_until(lambda: len(indices) == 250)
    finally:
        pipeline.stop()
    assert indices == list(range(250))
    assert camera.status().dropped == 0
    assert camera.status().state == "ended"


def test_fastest_plays_ahead_of_the_detector_and_counts_what_it_missed(
    bikes: Path, detector: Detector
) -> None:
    camera_config = CameraConfig(source=str(bikes), pace="fastest", loop=False, start_s=2)
    pipeline = Pipeline(AppConfig(cameras={"clip": camera_config}), detector)
    camera = pipeline.cameras["clip"]
    pipeline.start()
    try:
        assert camera.finished.wait(60)
        wait_until(lambda: camera.status().detected + camera.status().dropped == 200)
    finally:
        pipeline.stop()
    status = camera.status()
    assert (status.state, status.decoded) == ("ended", 200), (
        "10 s at 25 pictures a second, the first 2 s left out"
    )
    assert 0 < status.detected < 200


def test_cameras_share_a_detector_but_no_ids(detector: Detector) -> None:
    config = AppConfig(cameras={"one": CameraConfig(source="demo"), "two": CameraConfig(source="demo")})
    pipeline = Pipeline(config, detector)
    pipeline.start()
    try:
        cameras = list(pipeline.cameras.values())
        wait_until(lambda: all(camera.status().objects > 0 for camera in cameras))
        first_ids = [camera.newest()[1].ids.min() for camera in cameras]  # type: ignore[index]
    finally:
        pipeline.stop()
    assert first_ids == [1, 1]


def test_nobody_watching_means_no_encoder_and_watching_starts_one(detector: Detector) -> None:
    pipeline = Pipeline(AppConfig(cameras={"demo": CameraConfig(source="demo")}), detector)
    hub = pipeline.cameras["demo"].hub(Rendition("h264"))
    pipeline.start()
    try:
        wait_until(lambda: pipeline.cameras["demo"].status().detected > 5)
        assert hub.units == 0
        assert not encoder_threads()
        with watched(hub, Drain()):
            wait_until(lambda: hub.units > 5)
        wait_until(lambda: not encoder_threads())
    finally:
        pipeline.stop()


def encoder_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("encode-")]


def test_colour_tags_do_not_reopen_the_encoder(tmp_path: Path, detector: Detector) -> None:
    """The detector's scaler rewrites a picture's tags while the encoder's thread reads them."""
    clip = tmp_path / "tagged.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        for _ in range(75):
            container.mux(stream.encode(VideoFrame(1280, 720, "yuv420p")))
        container.mux(stream.encode(None))
    pipeline = Pipeline(AppConfig(cameras={"one": CameraConfig(source=str(clip))}), detector)
    hub = pipeline.cameras["one"].hub(Rendition("h264"))
    with watched(hub, Drain()):
        pipeline.start()
        try:
            wait_until(lambda: hub.units > 60)
        finally:
            pipeline.stop()
    assert hub.keyframes <= 2, "one for the join, and at most one that repeats it"


def test_when_watched_detects_only_while_watched(detector: Detector) -> None:
    camera = CameraConfig(source="demo", detect="when-watched")
    pipeline = Pipeline(AppConfig(cameras={"demo": camera}), detector)
    pipeline.start()
    try:
        status = pipeline.cameras["demo"].status
        wait_until(lambda: status().decoded > 10)
        assert status().detected == 0
        with watched(pipeline.cameras["demo"].hub(Rendition("h264")), Drain()):
            wait_until(lambda: status().detected > 5)
    finally:
        pipeline.stop()


@pytest.mark.slow
def test_exact_overlay_draws_each_frames_own_tracks(bikes: Path, detector: Detector) -> None:
    """What is drawn on a picture is what a separate run over the same clip finds in that very picture."""
    expected: dict[int | None, Tracks] = {}
    with closing(open_source(str(bikes), SourceOptions(pace="lossless"))) as source:
        camera_config = CameraConfig(source=str(bikes), pace="lossless", overlay="exact", loop=False)
        pipeline = Pipeline(AppConfig(cameras={"clip": camera_config}), detector)
        tracking = pipeline.batchers["default"].tracking
        tracker = Tracker(tracking)
        while (frame := source.read()) is not None:
            (found,) = detector.detect([frame.picture], tracking.low_score)
            expected[frame.picture.pts] = tracker.update(found, frame.time_s, View.of(frame.picture))

    drawn: list[tuple[int | None, Tracks]] = []
    hub = pipeline.cameras["clip"].hub(Rendition("h264"))
    draw = hub._draw

    def watch(picture: VideoFrame, tracks: Tracks) -> VideoFrame:
        drawn.append((picture.pts, tracks))
        return draw(picture, tracks)

    hub._draw = watch
    with watched(hub, Drain()):
        pipeline.start()
        assert pipeline.cameras["clip"].finished.wait(60)
        wait_until(lambda: len(drawn) >= 249)
        pipeline.stop()
    assert sum(len(tracks) for _, tracks in drawn) > 20
    for pts, tracks in drawn:
        np.testing.assert_array_equal(tracks.ids, expected[pts].ids)
        np.testing.assert_allclose(tracks.boxes, expected[pts].boxes, atol=1e-3)


def black_only_model(path: Path) -> Path:
    """A contract file that runs on a black picture, as in the warm-up, and fails on any other."""
    spec = ModelSpec(names=("thing",), input_height=32, input_width=32, family="test")
    nodes = [
        helper.make_node("ReduceMax", ["images"], ["brightest"], keepdims=0),
        helper.make_node("Cast", ["brightest"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["only_one", "index"], ["factor"]),
        helper.make_node("Mul", ["zero_scores", "factor"], ["scores"]),
        helper.make_node("Identity", ["zero_boxes"], ["boxes"]),
        helper.make_node("Identity", ["zero_classes"], ["classes"]),
    ]
    graph = helper.make_graph(
        nodes,
        "black_only",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["B", 32, 32, 3])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["B", 1, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["B", 1]),
            helper.make_tensor_value_info("classes", TensorProto.INT64, ["B", 1]),
        ],
        [
            onnx.numpy_helper.from_array(np.zeros(1, np.float32), "only_one"),
            onnx.numpy_helper.from_array(np.zeros((1, 1), np.float32), "zero_scores"),
            onnx.numpy_helper.from_array(np.zeros((1, 1, 4), np.float32), "zero_boxes"),
            onnx.numpy_helper.from_array(np.zeros((1, 1), np.int64), "zero_classes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, spec.to_metadata())
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("overlay", ["smooth", "exact"])
def test_a_failing_detector_is_told_and_pictures_go_on(tmp_path: Path, overlay: str) -> None:
    broken = Detector(black_only_model(tmp_path / "black_only.onnx"), device="cpu")
    camera = CameraConfig.model_validate({"source": "synthetic:320x240@30", "overlay": overlay})
    pipeline = Pipeline(AppConfig(cameras={"one": camera}), broken)
    hub = pipeline.cameras["one"].hub(Rendition("h264"))
    with watched(hub, Drain()):
        pipeline.start()
        try:
            wait_until(lambda: pipeline.fault is not None)
            units = hub.units
            wait_until(lambda: hub.units > units + 10)
            assert pipeline.cameras["one"].status().detected == 0
        finally:
            pipeline.stop()


def test_one_cameras_picture_costs_the_others_nothing(tmp_path: Path) -> None:
    """In one batch, a black picture, which this model can do, and one it cannot."""
    black = tmp_path / "black.mp4"
    write_black_clip(black, side=64, count=40)
    broken = Detector(black_only_model(tmp_path / "black_only.onnx"), device="cpu", threads=usable_cores())
    cameras = {
        "black": CameraConfig(source=str(black)),
        "bright": CameraConfig(source="synthetic:320x240@30"),
    }
    config = AppConfig(cameras=cameras, detector=DetectorConfig(max_batch=2))
    pipeline = Pipeline(config, broken)
    pipeline.start()
    try:
        wait_until(lambda: pipeline.fault is not None and pipeline.cameras["black"].status().detected > 3)
        assert pipeline.cameras["bright"].status().detected == 0
    finally:
        pipeline.stop()


def write_black_clip(path: Path, side: int, count: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        for _ in range(count):
            picture = VideoFrame(side, side, "yuv420p")
            for plane, value in zip(picture.planes, (16, 128, 128), strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def test_another_picture_size_forgets_the_tracks_of_the_old(detector: Detector) -> None:
    pipeline = Pipeline(AppConfig(cameras={"one": CameraConfig(source="demo")}), detector)
    camera, tracking = pipeline.cameras["one"], pipeline.batchers["default"].tracking
    box = Detections(
        np.array([[1000, 400, 1100, 700]], np.float32), np.array([0.9], np.float32), np.zeros(1, np.int64)
    )
    for index in range(10):
        frame = Frame(VideoFrame(1280, 720, "yuv420p"), index, index / 25, time.monotonic())
        large = camera.detected(frame, box, tracking)
    assert len(large) == 1
    small = Frame(VideoFrame(640, 360, "yuv420p"), 10, 10 / 25, time.monotonic())
    assert len(camera.detected(small, Detections.empty(), tracking)) == 0
    half = Detections(box.boxes / 2, box.scores, box.classes)
    for index in range(11, 21):
        frame = Frame(small.picture, index, index / 25, time.monotonic())
        again = camera.detected(frame, half, tracking)
    assert again.ids[0] > large.ids[0]


def test_an_unwatched_camera_still_has_a_snapshot(detector: Detector) -> None:
    camera = CameraConfig(source="demo", detect="when-watched")
    pipeline = Pipeline(AppConfig(cameras={"demo": camera}), detector)
    pipeline.start()
    try:
        wait_until(lambda: pipeline.cameras["demo"].status().decoded > 2)
        assert pipeline.cameras["demo"].snapshot() is not None
    finally:
        pipeline.stop()


@pytest.mark.parametrize("overlay", ["smooth", "exact"])
def test_stop_is_quick_whatever_happens(detector: Detector, overlay: str) -> None:
    cameras = {
        "demo": CameraConfig.model_validate({"source": "demo", "overlay": overlay}),
        "down": CameraConfig(source="rtsp://127.0.0.1:1/none"),
    }
    pipeline = Pipeline(AppConfig(cameras=cameras), detector)
    with watched(pipeline.cameras["demo"].hub(Rendition("vp8")), Drain()):
        pipeline.start()
        wait_until(lambda: pipeline.cameras["demo"].status().encoded > 3)
        began = time.monotonic()
        pipeline.stop()
        assert time.monotonic() - began < 2
