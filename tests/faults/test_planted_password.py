"""A password planted in every place that takes one is found in nothing that the app says, in no form."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, unquote_plus

import httpx2 as httpx
import pytest

from stream.config_file import load_config
from stream.errors import ConfigError, LookoutError
from stream.sources import SourceOptions, open_source

PLANTED = "pl4nted"
TOKEN = f"{PLANTED}-token-1"
ENVIRONMENT = {
    "CAM_PASSWORD": f"{PLANTED}@env/x y",
    "CAM_URL": f"rtsp://admin:{PLANTED}%40whole@127.0.0.1:1/whole",
    "CAM_PATH": f"{PLANTED}-in-the-path",
    "TURN_SECRET": f"{PLANTED}-turn-secret",
}
FILE = f"{PLANTED}@file/ü+%"
CONFIG = """
server:
  token: ${{file:{folder}/token}}
  ice_servers: [{{urls: ["turn:127.0.0.1:9"], secret: "${{TURN_SECRET}}"}}]
cameras:
  userinfo: {{source: "rtsp://admin:pl4nted%40literal%2Fx@127.0.0.1:1/a"}}
  query: {{source: "rtsp://127.0.0.1:1/live?user=admin&password=pl4nted-query"}}
  path: {{source: "rtsp://127.0.0.1:1/user=admin_password=pl4nted-path_channel=1"}}
  env: {{source: "rtsp://admin:${{CAM_PASSWORD}}@127.0.0.1:1/b"}}
  file: {{source: "rtsp://admin:${{file:{folder}/cam}}@no-such-host.invalid/c"}}
  whole: {{source: "${{CAM_URL}}"}}
  missing: {{source: "{web}/404/${{CAM_PATH}}/stream?key=${{CAM_PASSWORD}}"}}
  refusing: {{source: "http://admin:${{CAM_PASSWORD}}@{host}/401/${{CAM_PATH}}"}}
  moved: {{source: "http://admin:${{CAM_PASSWORD}}@{host}/302/${{CAM_PATH}}"}}
  garbage: {{source: "http://admin:${{CAM_PASSWORD}}@{host}/200/${{CAM_PATH}}"}}
"""
CAMERAS = re.findall(r"^  (\w+): \{\{source", CONFIG, re.MULTILINE)


class Rude(BaseHTTPRequestHandler):
    """Answers what its path begins with, and repeats the request to whoever asks."""

    def do_GET(self) -> None:
        self.send_response(int(self.path[1:4]), f"no: {self.path}")
        self.send_header("Location", f"http://admin:{PLANTED}@127.0.0.1:1{self.path[4:]}")
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("planted")
    (folder / "cam").write_text(FILE + "\n")
    (folder / "token").write_text(TOKEN + "\n")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Rude)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"127.0.0.1:{server.server_port}"
    path = folder / "lookout.yaml"
    path.write_text(CONFIG.format(folder=folder, web=f"http://{host}", host=host))
    yield path
    server.shutdown()
    server.server_close()


def clean(said: str, where: str) -> None:
    """Also as it was percent-encoded, once or twice."""
    for form in (said, unquote(said), unquote(unquote(said)), unquote_plus(said)):
        found = form.lower().find(PLANTED)
        assert found < 0, f"{where}: …{form[max(0, found - 60) : found + 40]}…"


@contextmanager
def watching(config: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """The app with everything logged; its address, and what it has said."""
    command = [
        sys.executable,
        "-m",
        "stream.cli",
        "watch",
        "--config",
        str(config),
        "--port",
        "0",
        *arguments,
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **ENVIRONMENT, "LOOKOUT_LOG": "debug"},
    )
    said: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: said.extend(process.stdout or ()))
    try:
        reader.start()
        deadline = time.monotonic() + 60
        while not (found := re.search(r"open +(http://[\d.:]+)", "".join(said))):
            assert time.monotonic() < deadline, "".join(said)
            time.sleep(0.05)
        yield process, found[1], said
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()


def test_it_is_in_no_log_line_and_no_answer(config: Path) -> None:
    with watching(config) as (process, address, said):
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=address, headers=bearer) as http:
            wait_until_all_failed(http)
            ask_everything(http)
        ask_as_a_stranger(address)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    text = "".join(said)
    for camera in CAMERAS:
        assert f"camera {camera}: " in text
    for reason in ("unreachable", "unauthorised", "not found"):
        assert reason in text
    assert "rtsp://***@127.0.0.1:1/b" in text, "hosts are still told"
    clean(text, "log")


def wait_until_all_failed(http: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            cameras = http.get("/api/cameras").json()
            if all(camera["reason"] for camera in cameras):
                assert [camera["id"] for camera in cameras] == CAMERAS
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)


def ask_everything(http: httpx.Client) -> None:
    """Every address, right and wrong, with and without a secret in the question."""
    paths = ["/", "/api/app", "/api/cameras", "/metrics", "/docs", "/openapi.json", "/healthz", "/readyz"]
    for camera in CAMERAS:
        paths += [f"/api/cameras/{camera}", f"/api/cameras/{camera}/snapshot.jpg"]
    secrets = [
        *ENVIRONMENT.values(),
        FILE,
        TOKEN,
        f"{PLANTED}@literal/x",
        f"{PLANTED}-query",
        f"{PLANTED}-path",
    ]
    for secret in secrets:
        plain, encoded = quote(secret), quote(secret, safe="")
        paths += [
            f"/{plain}",
            f"/{encoded}/",
            f"/api/cameras/{encoded}",
            f"/api/cameras/{encoded}/snapshot.jpg",
        ]
        paths += [f"/web/{plain}", f"/web/{encoded}", f"/api/app?token={encoded}", f"/?token={encoded}x"]
    for path in paths:
        tell(http.get(path), path)
    for secret in secrets:
        encoded = quote(secret, safe="")
        sdp = {"Content-Type": "application/sdp"}
        for path in (f"env?boxes={encoded}", f"env?height={encoded}", f"env?rendition={encoded}", encoded):
            tell(http.post(f"/whep/{path}", content=f"v=0\r\na={secret}\r\n".encode(), headers=sdp), path)
            tell(http.post(f"/whip/{path}", content=secret.encode(), headers=sdp), path)
        tell(http.post("/whep/env", content=b"", headers={"Content-Type": f"a/{encoded}"}), "type")
        tell(http.patch(f"/whep/env/{encoded}", content=secret.encode()), "patch")
        tell(http.delete(f"/whep/env/{encoded}"), "delete")
        tell(http.request("BREW", f"/api/{encoded}"), "method")


def ask_as_a_stranger(address: str) -> None:
    for headers in ({}, {"Authorization": f"Bearer {PLANTED}"}, {"Cookie": f"lookout_token={PLANTED}"}):
        tell(httpx.get(f"{address}/api/cameras?x={TOKEN}", headers=headers), "stranger")
    tell(httpx.get(f"{address}/?token={TOKEN}x"), "wrong token")


def tell(response: httpx.Response, question: str) -> None:
    said = json.dumps(dict(response.headers)) + response.text
    clean(said, f"{response.request.method} {question} ({response.status_code})")


def test_it_is_in_no_exception(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything that is chained to it, as a traceback would print it."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for name, camera in load_config(config).cameras.items():
        with pytest.raises(LookoutError) as caught:
            open_source(camera.source, SourceOptions(open_timeout_s=5)).read()
        clean("".join(traceback.format_exception(caught.value)), name)


def test_it_is_in_no_complaint_about_the_configuration(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    text = config.read_text()
    spoilt = [
        text.replace("userinfo: {", "userinfo: {overlay: '${CAM_PASSWORD}', "),
        text.replace("userinfo: {", "userinfo: {detector: '${CAM_PASSWORD}', "),
        text.replace("userinfo: {", "userinfo: {stall_s: '${CAM_PATH}', "),
        text.replace("  token:", "  host: '${CAM_PASSWORD}'\n  port: '${CAM_PASSWORD}'\n  token:"),
        text.replace("  token: ${", "  token: x ${"),
        text.replace('secret: "', 'secret: "ü '),
        text.replace('urls: ["turn', 'urls: ["${CAM_URL}'),
        text.replace("server:", "log: {level: '${CAM_PATH}'}\nserver:"),
        text.replace("${CAM_PATH}", "${CAM_PATH"),
        text.replace("/token}", f"/{PLANTED[:3]}}}"),
    ]
    path = config.with_name("spoilt.yaml")
    for written in spoilt:
        assert written != text
        path.write_text(written)
        with pytest.raises(ConfigError) as caught:
            load_config(path)
        print(caught.value)
        said = "".join(traceback.format_exception(caught.value))
        clean(said.replace(str(path.parent), ""), written)
