"""Cameras that are added, changed and removed while the app runs: by the API, by the file, and into the file."""

from __future__ import annotations

import asyncio
import logging
import stat
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from stream.config import AppConfig, CameraConfig, ServerConfig
from stream.config_file import load_config, override
from stream.detector import Detector
from stream.live_config import LiveConfig
from stream.pipeline import Pipeline
from stream.server import create_app
from tests.stream.test_pipeline import wait_until

FILE = """\
# Our cameras; ask Ada before changing anything.
server:
    port: 8000     # the proxy knows it

cameras:
    front:                       # above the door
        source: "synthetic:320x240@15"
        overlay: exact           # as the guards like it
    yard:
        # it is slow
        source: synthetic:160x120@5
        stall_s: 8
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "lookout.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture
def pipeline(path: Path, detector: Detector) -> Iterator[Pipeline]:
    pipeline = Pipeline(load_config(path), detector)
    pipeline.start()
    yield pipeline
    pipeline.stop()


@pytest.fixture
def client(path: Path, pipeline: Pipeline) -> Iterator[TestClient]:
    config = load_config(path)
    app = create_app(pipeline, config.server, LiveConfig(config, pipeline, path))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def test_a_camera_comes_changes_and_goes(client: TestClient, pipeline: Pipeline) -> None:
    front = pipeline.camera("front")
    wait_until(lambda: front.status().detected > 2)
    answer = client.post("/api/cameras", json={"id": "side", "source": "synthetic:320x240@30"})
    assert answer.status_code == 201
    assert answer.headers["location"] == "/api/cameras/side"
    side = pipeline.camera("side")
    wait_until(lambda: side.status().detected > 2)
    assert client.post("/api/cameras", json={"id": "side", "source": "demo"}).status_code == 409

    assert client.put("/api/cameras/side", json={"source": "synthetic:320x240@30"}).status_code == 200
    assert pipeline.camera("side") is side, "nothing changed, so nothing began anew"
    answer = client.patch("/api/cameras/side", json={"detect_fps": 5, "overlay": "exact"})
    assert answer.json()["overlay"] == "exact"
    assert pipeline.camera("side").config == CameraConfig(
        source="synthetic:320x240@30", detect_fps=5, overlay="exact"
    )
    client.patch("/api/cameras/side", json={"detect_fps": None})
    assert pipeline.camera("side").config.detect_fps is None

    assert client.put("/api/cameras/other", json={"source": "demo"}).status_code == 201
    client.patch("/api/cameras/front", json={"stall_s": 9})
    front = pipeline.camera("front")
    assert list(pipeline.cameras) == ["front", "yard", "side", "other"], "each stays in its place"
    assert client.delete("/api/cameras/side").status_code == 204
    assert [camera["id"] for camera in client.get("/api/cameras").json()] == ["front", "yard", "other"]
    assert client.get("/api/cameras/side").status_code == 404
    assert client.delete("/api/cameras/side").status_code == 404
    assert pipeline.camera("front") is front
    assert front.status().reconnects == 0


@pytest.mark.parametrize(
    ("camera_id", "camera", "status", "expected"),
    [
        ("side", {"source": "http://127.0.0.1:1/x"}, 403, "server.allow_sources allows: rtsp://"),
        ("side", {"source": "/etc/passwd"}, 403, "may not be added here"),
        ("side", {"source": "0"}, 403, "may not be added here"),
        (
            "side",
            {"source": "rtsp://${HOME}/x", "overlay": "blurry"},
            422,
            "overlay: input should be 'smooth'",
        ),
        ("side", {}, 422, "request: cameras.side.source: is missing"),
        ("side", {"source": "demo", "stal_s": 3}, 422, "did you mean 'stall_s'?"),
        ("side", {"source": "demo", "detector": "other"}, 422, "there is no detector 'other'"),
        ("side", {"source": "demo", "regions": [[[0, 0], [1, 1]]]}, 422, "regions.0: "),
        ("Side Door", {"source": "demo"}, 422, "use lower-case letters"),
        ("side", {"source": "synthetic:1x1@1"}, 422, "expected a size from"),
    ],
)
def test_what_is_wrong_is_told_and_changes_nothing(
    client: TestClient, pipeline: Pipeline, camera_id: str, camera: dict[str, Any], status: int, expected: str
) -> None:
    before = pipeline.cameras
    answer = client.put(f"/api/cameras/{camera_id}", json=camera)
    assert (answer.status_code, expected in answer.json()["error"]) == (status, True), answer.text
    assert pipeline.cameras is before


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"{}", "text/plain"), (b"[1]", "application/json"), (b"{", "application/json"), (b"{}", None)],
)
def test_what_is_no_json_object_is_refused(client: TestClient, body: bytes, kind: str | None) -> None:
    """Another site's page may send text, but nothing that a browser asks about first."""
    headers = {"Content-Type": kind} if kind else {}
    answer = client.request("POST", "/api/cameras", content=body, headers=headers)
    assert answer.status_code in (415, 422)
    assert "error" in answer.json()


def test_a_source_that_the_file_may_have_stays_when_callers_change_the_rest(
    path: Path, detector: Detector, bikes: Path
) -> None:
    """A file in a folder that callers may not name."""
    config = AppConfig(cameras={"clip": CameraConfig(source=str(bikes))})
    pipeline = Pipeline(config, detector)
    with TestClient(create_app(pipeline, ServerConfig()), base_url="http://127.0.0.1") as client:
        assert client.patch("/api/cameras/clip", json={"stall_s": 9}).status_code == 200
        assert pipeline.camera("clip").config.stall_s == 9
        assert client.patch("/api/cameras/clip", json={"source": str(bikes) + "x"}).status_code == 403
        assert client.patch("/api/cameras/clip?save=true", json={"stall_s": 8}).status_code == 409


def test_saving_keeps_comments_order_and_references(
    client: TestClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.chmod(0o640)
    monkeypatch.setenv("RATE", "5")
    path.write_text(path.read_text().replace("160x120@5", "160x120@${RATE}"))
    client.patch("/api/cameras/yard?save=true", json={"stall_s": 9})
    client.put("/api/cameras/new?save=true", json={"source": "rtsp://127.0.0.1:1/${x}", "overlay": "exact"})
    client.patch("/api/cameras/front?save=true", json={"overlay": None})
    assert (
        path.read_text()
        == """\
# Our cameras; ask Ada before changing anything.
server:
    port: 8000     # the proxy knows it

cameras:
    front:                       # above the door
        source: "synthetic:320x240@15"
    yard:
        # it is slow
        source: synthetic:160x120@${RATE}
        stall_s: 9
    new:
        source: rtsp://127.0.0.1:1/$${x}
        overlay: exact
"""
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    client.delete("/api/cameras/front?save=true")
    assert list(load_config(path).cameras) == ["yard", "new"]
    assert load_config(path).cameras["new"].source == "rtsp://127.0.0.1:1/${x}"
    assert "Ada" in path.read_text()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "no scratch file is left"


def test_what_is_written_out_although_it_is_the_default_stays_when_the_rest_is_saved(
    client: TestClient, path: Path
) -> None:
    text = path.read_text().replace("overlay: exact  ", "overlay: smooth ")
    path.write_text(text)
    client.put("/api/cameras/front", json={"source": "synthetic:320x240@15"})
    assert client.patch("/api/cameras/front?save=true", json={"stall_s": 9}).status_code == 200
    comment = "# as the guards like it\n"
    assert path.read_text() == text.replace(comment, f"{comment}        stall_s: 9\n")


async def test_a_secret_that_was_renewed_is_not_written_out_and_comes_into_force(
    path: Path, detector: Detector
) -> None:
    secret = path.with_name("secret")
    secret.write_text("first-one\n")
    text = f"cameras:\n  gate:\n    source: rtsp://me:${{file:{secret}}}@127.0.0.1:1/x\n"
    path.write_text(text)
    config = load_config(path)
    pipeline = Pipeline(config, detector)
    async with watched(path, pipeline, config) as live:
        secret.write_text("second-one\n")
        await live.change("gate", {"stall_s": 9}, save=True)
        assert path.read_text() == f"{text}    stall_s: 9\n"
        await until(lambda: "second-one" in pipeline.camera("gate").config.source)
        assert pipeline.camera("gate").config.stall_s == 9


async def test_of_changes_at_once_none_is_lost(path: Path, pipeline: Pipeline) -> None:
    live = LiveConfig(load_config(path), pipeline, path)
    await asyncio.gather(
        live.change("yard", {"stall_s": 3}, save=False), live.change("yard", {"overlay": "exact"}, save=False)
    )
    config = pipeline.camera("yard").config
    assert (config.stall_s, config.overlay) == (3, "exact")
    side = {"source": "synthetic:160x120@5"}
    added = await asyncio.gather(
        *(live.add("side", side, save=False) for _ in range(2)), return_exceptions=True
    )
    assert [str(each) for each in added if each is not None] == [
        "there is a camera 'side'; PUT or PATCH changes it"
    ]


def test_a_file_that_is_wrong_is_not_written_to(client: TestClient, path: Path) -> None:
    path.write_text("cameras: {front: {source: demo, nope: 1}}\n")
    answer = client.patch("/api/cameras/yard?save=true", json={"stall_s": 9})
    assert answer.status_code == 409
    assert "cameras.front.nope: unknown key" in answer.json()["error"]
    assert answer.json()["error"].startswith("the change is in force, but not saved: ")
    assert path.read_text() == "cameras: {front: {source: demo, nope: 1}}\n"


@asynccontextmanager
async def watched(
    path: Path, pipeline: Pipeline, config: AppConfig | None = None
) -> AsyncIterator[LiveConfig]:
    live = LiveConfig(override(config or load_config(path), {"server": {"port": 0}}), pipeline, path)
    task = asyncio.create_task(live.watch())
    try:
        yield live
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Any, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_an_edit_of_the_file_is_taken_and_touches_no_other_camera(
    path: Path, pipeline: Pipeline
) -> None:
    front = pipeline.camera("front")
    async with watched(path, pipeline) as live:
        await live.put("mine", {"source": "synthetic:320x240@5"}, save=False)
        text = FILE.replace("stall_s: 8", "stall_s: 3") + "    gate: {source: 'synthetic:160x120@5'}\n"
        path.write_text(text)
        await until(lambda: "gate" in pipeline.cameras and pipeline.camera("yard").config.stall_s == 3)
        assert set(pipeline.cameras) == {"front", "yard", "mine", "gate"}
        scratch = path.with_suffix(".new")  # as editors do it
        scratch.write_text(text[: text.index("    yard:")])
        scratch.replace(path)
        await until(lambda: set(pipeline.cameras) == {"front", "mine"})
    assert pipeline.camera("front") is front
    assert front.status().reconnects == 0


async def test_an_edit_that_the_api_saves_into_is_still_taken(path: Path, pipeline: Pipeline) -> None:
    async with watched(path, pipeline) as live:
        await asyncio.sleep(1.2)
        path.write_text(FILE + "    gate: {source: 'synthetic:160x120@5'}\n")
        await live.change("yard", {"stall_s": 4}, save=True)
        yard = pipeline.camera("yard")
        await until(lambda: "gate" in pipeline.cameras)
        assert pipeline.camera("yard") is yard
    assert load_config(path).cameras["yard"].stall_s == 4


async def test_an_edit_made_while_the_models_were_loaded_is_taken(path: Path, detector: Detector) -> None:
    config = load_config(path)
    path.write_text(FILE + "    gate: {source: 'synthetic:160x120@5'}\n")
    pipeline = Pipeline(config, detector)
    async with watched(path, pipeline, config):
        await until(lambda: "gate" in pipeline.cameras)


async def test_a_bad_edit_is_refused_with_its_line_and_the_old_stays(
    path: Path, pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    before = pipeline.cameras
    async with watched(path, pipeline) as live:
        for bad, line in [
            (FILE.replace("exact", "blurry"), ":8: cameras.front.overlay: input should be"),
            (FILE.replace("yard:", "yard"), ":10: not valid YAML"),
            (FILE.replace("synthetic:160x120@5", "sinthetic:1"), "sinthetic:1"),
            (FILE.replace("stall_s: 8", "stall_s: 2026-13-32"), "a value in it cannot be read"),
        ]:
            path.write_text(bad)
            await until(lambda line=line: line in (live.fault or ""))
            assert pipeline.cameras is before
        path.unlink()
        await asyncio.sleep(1.2)
        assert pipeline.cameras is before
        path.write_text(FILE + "    gate: {source: 'synthetic:160x120@5'}\n")
        await until(lambda: "gate" in pipeline.cameras)
        assert live.fault is None
    assert "what was in force stays" in caplog.text


async def test_what_has_to_wait_for_the_next_start_is_said(
    path: Path, pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with watched(path, pipeline):
        path.write_text(FILE.replace("stall_s: 8", "stall_s: 7"))
        await until(lambda: pipeline.camera("yard").config.stall_s == 7)
        assert "next start" not in caplog.text, "what the command line says besides is no edit"
        path.write_text(FILE.replace("port: 8000", "port: 8001"))
        await until(lambda: "edits of server take effect at the next start" in caplog.text)


async def test_what_the_api_saved_is_not_taken_for_an_edit(path: Path, pipeline: Pipeline) -> None:
    async with watched(path, pipeline) as live:
        await live.change("yard", {"stall_s": 4}, save=True)
        yard = pipeline.camera("yard")
        await asyncio.sleep(1.3)
        assert pipeline.camera("yard") is yard


def test_of_a_removed_camera_nothing_goes_on(client: TestClient, pipeline: Pipeline) -> None:
    front = pipeline.camera("front")
    wait_until(lambda: front.status().detected > 2)
    client.delete("/api/cameras/front")
    detected = front.status().detected
    time.sleep(0.3)
    assert front.status().detected <= detected + 1
    assert client.get("/metrics").text.count('camera="front"') == 0
