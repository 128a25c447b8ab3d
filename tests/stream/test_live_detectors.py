"""Another model while cameras run: over HTTP with somebody watching, from the file, and at which batch exactly."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import onnx
import pytest
from onnx import helper

from export.artifact import ModelSpec
from stream.batching import Batcher, Loaded
from stream.camera import Camera
from stream.config import CameraConfig, DetectorConfig, EncoderConfig
from stream.config_edit import save_detector
from stream.config_file import load_config
from stream.detector import Detector
from stream.errors import ConfigError, SignallingError
from stream.frames import Detections, Frame, Tracks
from stream.live_config import LiveConfig
from stream.pipeline import Pipeline
from stream.server import create_app
from stream.sources import SourceOptions, open_source
from stream.sources.allowed import allowed_model
from stream.tracking import Tracker, TrackerParameters
from tests.aiortc_peer import AiortcPeer
from tests.stream.test_live_config import until, watched
from tests.stream.test_pipeline import black_only_model, wait_until

FRAMES = 20

FILE = """\
server: {{allow_models: [{folder}]}}   # ours alone
detector:
  score_threshold: 0.3   # as the guards like it
cameras:
  demo: {{source: demo, detect_fps: 8}}
"""


def renamed(model: Path, path: Path, prefix: str) -> Path:
    """The model with other names for its classes."""
    graph = onnx.load(str(model))
    spec = ModelSpec.from_metadata({prop.key: prop.value for prop in graph.metadata_props}, str(model))
    metadata = {prop.key: prop.value for prop in graph.metadata_props}
    metadata["lookout.names"] = json.dumps([prefix + name for name in spec.names])
    helper.set_model_props(graph, metadata)
    onnx.save(graph, str(path))
    return path


@pytest.fixture
def path(tmp_path: Path, yolox_nano: Path) -> Path:
    (tmp_path / "models").mkdir()
    path = tmp_path / "lookout.yaml"
    path.write_text(FILE.format(folder=f"{tmp_path}/models, {yolox_nano.parent}"))
    return path


@pytest.fixture
def pipeline(path: Path, detector: Detector) -> Iterator[Pipeline]:
    pipeline = Pipeline(load_config(path), detector)
    pipeline.start()
    yield pipeline
    pipeline.stop()


@asynccontextmanager
async def asking(path: Path, pipeline: Pipeline) -> AsyncIterator[httpx.AsyncClient]:
    config = load_config(path)
    app = create_app(pipeline, config.server, LiveConfig(config, pipeline, path))
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=120) as http,
    ):
        yield http


async def test_a_model_takes_over_and_gives_back_while_somebody_watches(
    path: Path, pipeline: Pipeline, yolox_nano: Path, detector: Detector
) -> None:
    camera, threads = pipeline.camera("demo"), detecting()
    feed = camera.track_feed.subscribe()
    told: list[dict[str, Any]] = []
    feed.put = lambda message: told.append(json.loads(message))  # type: ignore[method-assign]
    black_only_model(path.parent / "models" / "black.onnx")
    async with asking(path, pipeline) as http:
        peer = AiortcPeer(http, "demo", loopback=True)
        await peer.join()
        await peer.wait_for(lambda peer: peer.pictures > 5)
        session = peer.location
        before = (await http.get("/api/detector")).json()
        assert (before["model"], before["input"], before["previous"]) == ("lookout-nano", [480, 352], None)
        answer = await http.put("/api/detector", json={"previous": True})
        assert (answer.status_code, "no other model" in answer.text) == (409, True)

        for model, status, words in [
            ("black.onnx", 422, "cannot run it on a picture"),
            ("none.onnx", 403, "server.allow_models allows: files in"),
            ("/etc/passwd", 403, "may not be run here"),
        ]:
            answer = await http.put("/api/detector", json={"model": model})
            assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
        answer = await http.put("/api/detector", json={"modell": "x"})
        assert (answer.status_code, "did you mean 'model'?" in answer.text) == (422, True)
        assert (await http.put("/api/detectors/none", json={})).status_code == 404
        assert pipeline.detector is detector
        assert pipeline.batchers["default"].swaps == 0

        wish = {"model": "yolox_nano.onnx", "score_threshold": 0.35}
        first = asyncio.create_task(http.put("/api/detector", json=wish))
        while (await http.get("/api/detector")).json()["loading"] is None:
            assert not first.done()
            await asyncio.sleep(0.05)
        second = await http.put("/api/detectors/default", json=wish)
        assert (second.status_code, "is being loaded already" in second.text) == (409, True)
        pictures = peer.pictures
        after = (await first).json()
        assert peer.pictures > pictures, "while it was loaded"
        assert (after["model"], after["input"], len(after["names"])) == ("yolox_nano", [416, 416], 80)
        assert after["settings"]["score_threshold"] == 0.35
        assert after["previous"]["model"] == "lookout-nano"
        assert pipeline.batchers["default"].tracking == TrackerParameters.for_threshold(0.35)

        swapped = len(told)
        await until(lambda: len(told) > swapped + 10)
        answer = await http.put("/api/detector?save=true", json={"previous": True})
        assert (answer.json()["model"], answer.json()["previous"]["model"]) == ("lookout-nano", "yolox_nano")
        assert pipeline.detector is detector, "it was kept"
        pictures = peer.pictures
        await peer.wait_for(lambda peer: peer.pictures > pictures + 10)
        assert (peer.location, camera.status().viewers) == (session, 1)
        assert 'lookout_detector_swaps_total{detector="default"} 2.0' in (await http.get("/metrics")).text
        await peer.leave()
    camera.track_feed.leave(feed)
    frames = [message["frame"] for message in told]
    assert frames == sorted(set(frames))
    assert path.read_text() == FILE.format(folder=f"{path.parent}/models, {yolox_nano.parent}").replace(
        "guards like it\n", "guards like it\n  model: lookout-nano\n"
    )
    assert detecting() == threads, "those of the models before have ended"


def detecting() -> int:
    return sum(thread.name.startswith("detect-") for thread in threading.enumerate())


class Watched(Camera):
    """Keeps what it is told of each frame, and what it shows of it."""

    def __init__(self, wake: Any) -> None:
        super().__init__("one", CameraConfig(source="synthetic:320x240@30"), EncoderConfig(), wake)
        self.told: list[tuple[int, Detections, Tracks, TrackerParameters]] = []

    def detected(self, frame: Frame, detections: Detections, tracking: TrackerParameters) -> Tracks:
        tracks = super().detected(frame, detections, tracking)
        self.told.append((frame.index, detections, tracks, tracking))
        return tracks


def test_names_change_with_the_batch_that_the_new_model_made(
    detector: Detector, model: Path, bikes: Path, tmp_path: Path
) -> None:
    """Two exchanges under way, the first for a model of the same classes; somebody is in the pictures throughout."""
    same = Detector(model, "cpu", 1)
    other = Detector(renamed(model, tmp_path / "other.onnx", "my "), "cpu", 2)
    sensitive = DetectorConfig(score_threshold=0.15)
    batcher = Batcher("default", sensitive, detector)
    camera = Watched(batcher.wake)
    batcher.add(camera)
    batcher.start()
    exchanges = {8: Loaded(DetectorConfig(score_threshold=0.12), same), 12: Loaded(sensitive, other)}
    with closing(open_source(str(bikes), SourceOptions(pace="lossless", start_s=1.2))) as source:
        for index in range(FRAMES):
            frame = source.read()
            assert frame is not None
            camera.pending.put(replace(frame, index=index))
            if index in exchanges:  # while this frame is waiting or being detected in
                batcher.exchange(exchanges[frame.index])
            wait_until(lambda: camera.pending.item is None)
    wait_until(lambda: len(camera.told) == FRAMES)
    batcher.request_stop()
    batcher.join(time.monotonic() + 5)

    seen = {names: [index for index, found, *_ in camera.told if found.names == names]
            for names in (detector.spec.names, other.spec.names)}  # fmt: skip
    assert [index for index, *_ in camera.told] == list(range(FRAMES))
    assert seen[detector.spec.names][-1] in (11, 12)
    assert seen[other.spec.names] == list(range(seen[detector.spec.names][-1] + 1, FRAMES))
    assert all(tracks.names == found.names for _, found, tracks, _ in camera.told)
    changed = [index for index, *_, tracking in camera.told if tracking.high_score == 0.12]
    assert changed == list(range(changed[0], seen[other.spec.names][0]))
    assert changed[0] in (8, 9)

    ids = {index: set(tracks.ids.tolist()) for index, _, tracks, _ in camera.told}
    last, first = seen[detector.spec.names][-1], seen[other.spec.names][0]
    assert ids[changed[0] - 1] & ids[changed[0]], "of the same classes tracks go on"
    shown = set[int]().union(*(ids[index] for index in range(first, FRAMES)))
    assert shown
    assert min(shown) > max(ids[last]), "of others they begin anew"
    assert batcher.runs.pictures.sum == FRAMES
    assert batcher.swaps == 2
    assert batcher.previous is not None
    assert batcher.previous.detector is same, "and no other is kept"


def test_tracks_of_other_classes_leave_under_their_old_names() -> None:
    tracker, box = Tracker(), np.array([[10, 10, 50, 90]], np.float32)

    def update(index: int, *names: str) -> Tracks:
        sure = np.array([0.9], np.float32)
        return tracker.update(Detections(box, sure, np.zeros(1, np.int64), names), index / 10)

    for index in range(3):
        old = update(index, "person")
    assert old.names == ("person",)
    assert tracker.predict(0.25).names == ("person",)
    new = update(3, "bus", "person")
    assert [(event.kind, event.names[event.class_]) for event in tracker.events] == [
        ("left", "person"),
        ("entered", "bus"),
    ]
    assert new.names == tracker.predict(0.4).names == ("bus", "person")
    assert new.ids[0] == old.ids[0] + 1


async def test_another_score_in_the_file_needs_no_other_session(path: Path, detector: Detector) -> None:
    pipeline, text = Pipeline(load_config(path), detector), path.read_text()
    async with watched(path, pipeline):
        path.write_text(text.replace("0.3 ", "0.45 "))
        await until(lambda: pipeline.batchers["default"].tracking.high_score == 0.45)
    assert pipeline.batchers["default"].swaps == 0
    assert pipeline.detector is detector


@pytest.mark.slow
async def test_an_edit_of_the_file_swaps_and_a_wrong_one_is_told_until_it_is_right(
    path: Path, pipeline: Pipeline, yolox_nano: Path
) -> None:
    batcher = pipeline.batchers["default"]
    wrong = path.read_text().replace("detector:\n", "detector:\n  model: none-such\n")
    async with watched(path, pipeline) as live:
        path.write_text(wrong)
        await until(lambda: "detector default: none-such: no such model" in (live.fault or ""), 60)
        path.write_text(wrong + "  gate: {source: 'synthetic:160x120@5'}\n")
        await until(lambda: "gate" in pipeline.cameras)
        assert live.fault is None
        await until(lambda: "none-such" in (live.fault or ""), 60)
        assert batcher.model.config.model == "lookout-nano"
        path.write_text(wrong.replace("none-such", str(yolox_nano)))
        await until(lambda: len(batcher.detector.spec.names) == 80, 60)
        await until(lambda: live.fault is None)


def test_what_is_saved_keeps_references_and_other_sections(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREET", "lookout-nano")
    path.write_text("detectors:\n  street: {model: '${STREET}', max_batch: 2}\n" + path.read_text())
    before = load_config(path)
    saved = save_detector(
        path, "street", {"model": "lookout-nano", "score_threshold": 0.5}, before.detectors["street"]
    )
    assert "street: {model: '${STREET}', score_threshold: 0.5}" in path.read_text()
    assert saved == load_config(path)
    assert saved.detectors["street"] == DetectorConfig(score_threshold=0.5)
    assert (saved.detector, saved.cameras) == (before.detector, before.cameras)
    path.write_text("cameras: {}\n")
    with pytest.raises(ConfigError, match="no detectors by name"):
        save_detector(path, "street", {"model": "lookout-nano"}, DetectorConfig())


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("lookout-nano", "lookout-nano"), ("yolox-nano", "yolox-nano"), ("a.onnx", "{}/models/a.onnx"),
        ("sub/b.onnx", "{}/models/sub/b.onnx"), ("{}/models/a.onnx", "{}/models/a.onnx"),
        ("../private/c.onnx", None), ("{}/models/../private/c.onnx", None), ("{}/private/c.onnx", None),
        ("out.onnx", None), ("c.onnx", None), ("sub", "sub"), ("./a.onnx", "{}/models/./a.onnx"), ("", None),
        ("a.onnx\n", None), ("*.onnx", None), ("-x", None), ("file://{}/models/a.onnx", None),
    ],
)  # fmt: skip
def test_files_of_models_count_by_where_they_really_are(
    tmp_path: Path, model: str, expected: str | None
) -> None:
    for name in ("models/a.onnx", "models/sub/b.onnx", "private/c.onnx"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "models/out.onnx").symlink_to(tmp_path / "private/c.onnx")
    folders = (f"{tmp_path}/none", f"{tmp_path}/models/")
    if expected is None:
        with pytest.raises(SignallingError, match="may not be run here"):
            allowed_model(model.format(tmp_path), folders)
    else:
        assert allowed_model(model.format(tmp_path), folders) == expected.format(tmp_path)
