"""A viewer that reaches the camera through a TURN server alone: a real coturn, a real Chromium."""

from __future__ import annotations

import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from stream.bench.chromium import wait_for
from tests.browser.live import wait_until

SECRET = "shared-by-both"
RELAY_ONLY = """
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(settings) {
    super({ ...settings, iceTransportPolicy: "relay" });
    window.peer = this;
  }
};
"""
PAIR = """
async () => {
  const report = await peer.getStats();
  const transport = [...report.values()].find((entry) => entry.type === "transport");
  return report.get(report.get(transport.selectedCandidatePairId).localCandidateId).candidateType;
}
"""


@pytest.fixture
def turn(tmp_path: Path) -> Iterator[int]:
    """The port of a TURN server on this machine."""
    program = shutil.which("turnserver")
    if program is None:
        pytest.skip("no TURN server here: apt-get install coturn")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [program, "-n", "--no-cli", "--no-tls", "--no-dtls", "--log-file=stdout", "--simple-log"]
    command += [f"--pidfile={tmp_path / 'turn.pid'}", f"--userdb={tmp_path / 'turn.db'}"]
    command += ["--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", f"--listening-port={port}"]
    command += [
        "--allow-loopback-peers",
        "--realm=lookout",
        "--use-auth-secret",
        f"--static-auth-secret={SECRET}",
    ]
    log = tmp_path / "turn.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: "Total General servers" in log.read_text(), 10, log.read_text)
        yield port
    finally:
        process.terminate()
        process.wait(5)
        print(log.read_text()[-3000:])


def config(path: Path, ice: str) -> Path:
    path.write_text(
        f"""
server:
  port: 0
  ice_servers:
    - urls: [{ice}]
      secret: {SECRET}
cameras:
  door:
    source: synthetic:320x180@15
"""
    )
    return path


def test_pictures_come_through_a_turn_server(
    watch: Callable[..., Any], page: Page, turn: int, tmp_path: Path
) -> None:
    path = config(tmp_path / "turn.yaml", f"'turn:127.0.0.1:{turn}?transport=udp'")
    with watch("--config", str(path)) as app:
        page.add_init_script(RELAY_ONLY)
        page.goto(app.url)
        wait_for(page, "lookout.shown.length > 20")
        assert page.evaluate(PAIR) == "relay"


def test_viewers_are_told_of_servers_with_credentials_that_expire(
    watch: Callable[..., Any], tmp_path: Path
) -> None:
    path = config(tmp_path / "turn.yaml", "'turn:192.0.2.1:3478', 'turns:turn.example.net:5349'")
    with watch("--config", str(path)) as app:
        request = urllib.request.Request(f"{app.url}/whep/door", method="OPTIONS")
        with urllib.request.urlopen(request, timeout=5) as response:
            links = response.headers.get_all("Link")
    assert [link.partition(";")[0] for link in links] == [
        "<turn:192.0.2.1:3478>",
        "<turns:turn.example.net:5349>",
    ]
    assert all('rel="ice-server"' in link and ':lookout"; credential="' in link for link in links)
    assert SECRET not in "".join(links)


def test_the_page_reads_link_headers(watch: Callable[..., Any], page: Page) -> None:
    header = (
        '<stun:a.example.net>; rel="ice-server", <turn:b.example.net?transport=udp>; rel="ice-server"; '
        'username="1:x, y"; credential="q\\"\\\\;,"; credential-type="password", <https://c>; rel="next"'
    )
    with watch("synthetic:320x180@5") as app:
        page.goto(app.url)
        read = page.evaluate('async (header) => (await import("/web/whep.js")).iceServers(header)', header)
    assert read == [
        {"urls": "stun:a.example.net"},
        {"urls": "turn:b.example.net?transport=udp", "username": "1:x, y", "credential": 'q"\\;,'},
    ]
