"""A real TURN server on this machine, and pages that reach a camera through it alone."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

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


@contextmanager
def turn_server(folder: Path) -> Iterator[int]:
    """Its port, while it runs."""
    program = shutil.which("turnserver")
    if program is None:
        pytest.skip("no TURN server here: apt-get install coturn")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [program, "-n", "--no-cli", "--no-tls", "--no-dtls", "--log-file=stdout", "--simple-log"]
    command += [f"--pidfile={folder / 'turn.pid'}", f"--userdb={folder / 'turn.db'}"]
    command += ["--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", f"--listening-port={port}"]
    command += [
        "--allow-loopback-peers",
        "--realm=lookout",
        "--use-auth-secret",
        f"--static-auth-secret={SECRET}",
    ]
    log = folder / "turn.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: "Total General servers" in log.read_text(), 10, log.read_text)
        yield port
    finally:
        process.terminate()
        process.wait(5)
        print(log.read_text()[-3000:])


def config(path: Path, ice: str, source: str = "synthetic:320x180@15") -> Path:
    """A configuration with these ICE servers and one camera."""
    path.write_text(
        f"""
server:
  port: 0
  ice_servers:
    - urls: [{ice}]
      secret: {SECRET}
cameras:
  door:
    source: {source}
"""
    )
    return path
