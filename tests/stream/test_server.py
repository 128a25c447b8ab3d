"""The HTTP surface, over a real pipeline on a real clip."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Iterator

import cv2
import httpx2 as httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from starlette.testclient import WebSocketDenialResponse

from stream.app import listen
from stream.config import AppConfig, CameraConfig, ServerConfig
from stream.detector import Detector
from stream.errors import UsageError
from stream.pipeline import Pipeline
from stream.server import create_app

SECRET = "hunter2hunter2"


@pytest.fixture(scope="module")
def pipeline(detector: Detector) -> Iterator[Pipeline]:
    config = AppConfig(
        cameras={
            "demo": CameraConfig(source="demo", overlay="exact"),
            "down": CameraConfig(source=f"rtsp://admin:{SECRET}@127.0.0.1:1/none"),
        }
    )
    pipeline = Pipeline(config, detector.twin())  # the tests below give theirs to other threads meanwhile
    pipeline.start()
    yield pipeline
    pipeline.stop()


@pytest.fixture
def client(pipeline: Pipeline) -> Iterator[TestClient]:
    with TestClient(create_app(pipeline, ServerConfig()), base_url="http://127.0.0.1") as client:
        yield client


def wait_for(client: TestClient, path: str, *, status: int = 200, timeout_s: float = 20) -> httpx.Response:
    deadline = time.monotonic() + timeout_s
    while (response := client.get(path)).status_code != status:
        assert time.monotonic() < deadline, response.text
        time.sleep(0.1)
    return response


def test_a_snapshot_is_the_clips_picture(client: TestClient) -> None:
    jpeg = wait_for(client, "/api/cameras/demo/snapshot.jpg")
    picture = cv2.imdecode(np.frombuffer(jpeg.content, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (272, 640, 3)
    assert picture.std() > 10


def test_cameras_say_their_state_and_never_a_credential(client: TestClient) -> None:
    wait_for(client, "/api/cameras/demo/snapshot.jpg")
    deadline = time.monotonic() + 10
    while (cameras := client.get("/api/cameras")) and cameras.json()[1]["state"] == "connecting":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    demo, down = cameras.json()
    assert (demo["state"], demo["width"], demo["height"]) == ("live", 640, 272)
    assert demo["detected"] > 0
    assert down["state"] == "reconnecting"
    assert down["reason"].startswith("unreachable: ")
    assert down["source"] == "rtsp://***@127.0.0.1:1/none"
    for path in ("/api/cameras", "/api/cameras/down", "/metrics", "/api/app", "/"):
        assert SECRET not in client.get(path).text


def test_unknown_cameras_and_missing_pictures_are_clear(client: TestClient) -> None:
    unknown = client.get("/api/cameras/nope")
    assert unknown.status_code == 404
    assert unknown.json() == {"error": "no camera 'nope'; there are: demo, down"}
    early = client.get("/api/cameras/down/snapshot.jpg")
    assert early.status_code == 503
    assert early.headers["retry-after"] == "1"


def test_health_page_and_openapi(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert "lookout_frames_total" in client.get("/metrics").text
    page = client.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "<script>" not in page.text
    assert "/api/cameras" in client.get("/openapi.json").json()["paths"]
    docs = client.get("/docs").text
    assert "https://" not in docs, "the documentation must not need the internet"
    about = client.get("/api/app").json()["detectors"]["default"]
    assert about["names"][0] == "person"
    assert "cpu" in about["device"].lower()


def test_it_is_ready_once_every_camera_was_tried_until_it_drains(detector: Detector) -> None:
    cameras = {"down": CameraConfig(source="rtsp://127.0.0.1:1/none"), "phone": CameraConfig(source="whip")}
    pipeline = Pipeline(AppConfig(cameras=cameras), detector)
    app = create_app(pipeline, ServerConfig())
    with (
        TestClient(app, base_url="http://127.0.0.1") as client,
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        assert (client.get("/readyz").status_code, client.get("/healthz").status_code) == (503, 200)
        pipeline.start()
        try:
            assert wait_for(client, "/readyz").json() == {"status": "ready"}
            new = pipeline.put(
                "new", CameraConfig(source=f"rtsp://127.0.0.1:{silent.getsockname()[1]}/never")
            )
            assert new.status().state == "connecting"
            assert client.get("/readyz").status_code == 200, "a camera that is added takes nobody away"
            app.state.health.draining = True
            assert (client.get("/readyz").status_code, client.get("/healthz").status_code) == (503, 200)
        finally:
            pipeline.stop()
        assert client.get("/healthz").status_code == 200, "what was told to end did not die"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_it_has_to_be_restarted_when_a_detector_thread_died(detector: Detector) -> None:
    pipeline = Pipeline(AppConfig(cameras={"demo": CameraConfig(source="demo")}), detector)
    (batcher,) = pipeline.batchers.values()
    with TestClient(create_app(pipeline, ServerConfig()), base_url="http://127.0.0.1") as client:
        pipeline.start()
        try:
            wait_for(client, "/api/cameras/demo/snapshot.jpg")
            assert client.get("/healthz").status_code == 200
            batcher._collecting_s = sys.exit  # type: ignore[method-assign, assignment]
            assert wait_for(client, "/healthz", status=503).json() == {"status": "failing"}
        finally:
            pipeline.stop()


def test_a_camera_that_is_live_is_enough(pipeline: Pipeline) -> None:
    wait_for_live = TestClient(create_app(pipeline, ServerConfig()), base_url="http://127.0.0.1")
    wait_for(wait_for_live, "/readyz")


def test_a_token_guards_everything_but_health(pipeline: Pipeline) -> None:
    config = ServerConfig(host="0.0.0.0", token=SecretStr(SECRET))
    with TestClient(create_app(pipeline, config), follow_redirects=False) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code in (200, 503)
        for path in ("/", "/api/cameras", "/metrics", "/web/app.js", "/docs"):
            refused = client.get(path)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
        for path in ("/whep/demo", "/whip/demo"):
            assert client.post(path, content=b"v=0").status_code == 401
        assert client.get("/api/cameras", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/api/cameras", headers={"Authorization": f"Bearer {SECRET}"}).status_code == 200
        entered = client.get(f"/?token={SECRET}")
        assert (entered.status_code, entered.headers["location"]) == (303, "/")
        assert "HttpOnly" in entered.headers["set-cookie"]
        assert client.get("/api/cameras").status_code == 200  # by cookie


def test_pages_of_named_sites_may_play_from_here(pipeline: Pipeline) -> None:
    config = ServerConfig(token=SecretStr(SECRET), allow_origins=("https://wall.example.net",))
    with TestClient(create_app(pipeline, config), base_url="http://127.0.0.1") as client:
        asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        named = {"Origin": "https://wall.example.net"}
        answer = client.options("/whep/demo", headers={**named, **asking})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://wall.example.net"
        other = client.options("/whep/demo", headers={"Origin": "https://other.example.net", **asking})
        assert "access-control-allow-origin" not in other.headers
        refused = client.get("/api/cameras", headers=named)
        assert refused.status_code == 401  # a site that is named still needs the token
        assert refused.headers["access-control-allow-origin"] == "https://wall.example.net"
        allowed = client.get("/api/cameras", headers={**named, "Authorization": f"Bearer {SECRET}"})
        assert allowed.status_code == 200
        assert "Location" in allowed.headers["access-control-expose-headers"]


def test_a_websocket_needs_the_token_and_a_page_that_may_play(pipeline: Pipeline) -> None:
    wall, bearer, address = (
        "https://wall.example.net",
        {"Authorization": f"Bearer {SECRET}"},
        "/whep/demo/none/boxes",
    )
    config = ServerConfig(host="0.0.0.0", token=SecretStr(SECRET), allow_origins=(wall,))
    with TestClient(create_app(pipeline, config), base_url="http://127.0.0.1") as client:

        def refusal(headers: dict[str, str]) -> tuple[int, str]:
            with (
                pytest.raises(WebSocketDenialResponse) as refused,
                client.websocket_connect(address, headers={"Host": "watch.example.net:8000", **headers}),
            ):
                pass
            return refused.value.status_code, refused.value.json()["error"]

        assert refusal({})[0] == 401
        assert refusal({"Authorization": "Bearer wrong"})[0] == 401
        there_is_none = (404, "no such session: it has ended, or it never was")
        assert refusal(bearer) == there_is_none
        client.cookies.set("lookout_token", SECRET)
        assert refusal({"Origin": "http://watch.example.net:8000"}) == there_is_none
        assert refusal({"Origin": wall}) == there_is_none
        for origin in ("https://evil.example.net", "http://watch.example.net", "http://[", "null"):
            status, reason = refusal({"Origin": origin})
            assert (status, origin in reason) == (403, True)


def test_a_websocket_of_another_site_is_refused_without_a_token_too(client: TestClient) -> None:
    for origin, status in {"http://127.0.0.1": 404, "https://evil.example.net": 403}.items():
        with (
            pytest.raises(WebSocketDenialResponse) as refused,
            client.websocket_connect(
                "/whep/demo/none/boxes", headers={"Origin": origin, "Host": "127.0.0.1"}
            ),
        ):
            pass
        assert refused.value.status_code == status


def test_another_sites_name_for_this_machine_is_refused(client: TestClient) -> None:
    """DNS rebinding: a page from elsewhere whose host name resolves to 127.0.0.1."""
    for host, status in {"evil.example": 403, "localhost:8000": 200, "[::1]:8000": 200}.items():
        assert client.get("/api/cameras", headers={"Host": host}).status_code == status


def test_a_port_in_use_is_one_clear_error() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(UsageError, match="choose another with --port"),
    ):
        listen(ServerConfig(port=taken.getsockname()[1]))


async def test_answers_are_not_held_up_by_nagles_algorithm() -> None:
    """asyncio turns it off only for sockets that name their protocol."""
    listener = listen(ServerConfig(port=0))
    delays: list[int] = []

    def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        delays.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    server = await asyncio.start_server(greet, sock=listener)
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    await reader.read()
    writer.close()
    server.close()
    assert delays == [1]
