"""The end of the real app: in order at the first SIGTERM, at once at the second; and what a supervisor is told."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from stream.systemd import notify, watchdog_s
from tests.aiortc_peer import AiortcPeer
from tests.stream.test_cli import watching


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Waits for the next datagram of an app that is started now."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(path))
        channel.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield lambda: channel.recv(4096).decode()


def wait_for(what: str, supervisor: Callable[[], str]) -> None:
    deadline = time.monotonic() + 30
    while what not in supervisor():
        assert time.monotonic() < deadline, f"never said: {what}"


async def test_viewers_are_told_and_the_process_ends_with_0(
    supervisor: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "600000")
    with watching("demo", "rtsp://127.0.0.1:1/none") as (process, address, _):
        assert supervisor().startswith("READY=1"), "the first that is said"
        assert [supervisor(), supervisor(), supervisor()] == ["WATCHDOG=1"] * 3
        async with httpx.AsyncClient(base_url=address) as http:
            assert (await http.get("/readyz")).status_code == 200
            peer = AiortcPeer(http, "demo", loopback=True)
            byes = heed_byes(peer)
            await peer.join()
            await peer.wait_for(lambda peer: peer.pictures > 3, 30)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            wait_for("STOPPING=1", supervisor)
            await peer.wait_for(lambda peer: byes and peer.connection.connectionState == "closed", 10)
            print(f"told after {time.monotonic() - began:.2f} s")
            with pytest.raises(httpx.TransportError):
                await ask_until_nobody_is_let_in(http)
            await peer.close()
        assert process.wait(10) == 0
        print(f"ended after {time.monotonic() - began:.2f} s")
        assert time.monotonic() - began < 5
        assert "Traceback" not in process.stderr.read()  # type: ignore[union-attr]


async def ask_until_nobody_is_let_in(http: httpx.AsyncClient) -> None:
    for _ in range(1000):
        assert (await http.get("/readyz")).status_code == 503


def heed_byes(peer: AiortcPeer) -> list[Any]:
    """RTCP BYE packets, as they come."""
    byes: list[Any] = []
    transceiver = peer.connection.addTransceiver

    def tapped(*arguments: Any, **options: Any) -> Any:
        made = transceiver(*arguments, **options)
        handle = made.receiver._handle_rtcp_packet

        async def see(packet: Any) -> None:
            if type(packet).__name__ == "RtcpByePacket":
                byes.append(packet)
            await handle(packet)

        made.receiver._handle_rtcp_packet = see
        return made

    peer.connection.addTransceiver = tapped  # type: ignore[method-assign]
    return byes


def test_a_second_signal_ends_it_at_once(supervisor: Callable[[], str]) -> None:
    with watching("synthetic:320x240@5") as (process, address, _):
        wait_for("READY=1", supervisor)
        host, _, port = address.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port))) as held:  # a request that is never complete
            held.sendall(
                b"POST /whep/synthetic HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/sdp\r\nContent-Length: 9\r\n\r\nv=0"
            )
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            wait_for("STOPPING=1", supervisor)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == -signal.SIGTERM


def test_nobody_who_asked_nobody_who_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    for nowhere in (str(tmp_path / "none"), "@lookout-test-nobody", "relative", ""):
        monkeypatch.setenv("NOTIFY_SOCKET", nowhere)
        notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        name = f"lookout-test-{os.getpid()}"
        channel.bind(f"\0{name}")
        channel.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify("STOPPING=1")
        assert channel.recv(100) == b"STOPPING=1"
        for _ in range(2000):  # whoever does not read holds nobody up
            notify("WATCHDOG=1")


def test_a_watchdog_that_means_another_process_is_not_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    for microseconds, pid, expected in (
        ("30000000", None, 30.0),
        ("30000000", str(os.getpid()), 30.0),
        ("30000000", "1", None),
        ("0", None, None),
        ("soon", None, None),
        ("", None, None),
    ):
        monkeypatch.setenv("WATCHDOG_USEC", microseconds)
        monkeypatch.setenv("WATCHDOG_PID", pid) if pid else monkeypatch.delenv("WATCHDOG_PID", raising=False)
        assert watchdog_s() == expected
