"""WHEP end to end in one process: real ICE, DTLS and SRTP between the app's sender and aiortc peers."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import aioice
import aiortc
import httpx2 as httpx
import numpy as np
import pytest
import uvicorn
from aiortc.rtp import RtcpSrPacket, RtpPacket, unpack_header_extensions
from av import VideoFrame
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream import barcode
from stream.bench import viewers as bench
from stream.encode import EncodedUnit
from stream.errors import DeviceUnavailable, SignallingError
from stream.frames import Tracks
from stream.webrtc import aiortc_adapter, whep
from stream.webrtc.hub import Hub
from stream.webrtc.rtp import HISTORY_PACKETS, RtpFormat, RtpStream, ntp_time
from stream.webrtc.sdp import MAX_CANDIDATES, parse_fragment, without_unreachable_candidates
from stream.webrtc.viewer import QUEUE_UNITS
from stream.webrtc.whep import MAX_BODY_BYTES, WhepService
from tests.aiortc_peer import AiortcPeer
from tests.stream.test_encode import planes_of
from tests.stream.test_hub import encoder_threads, frame, until

RATE = 30
SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}

# What Chromium 140 and later offer before gathering, cut to what matters here.
OFFER = """\
v=0
o=- 474967893019816355 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
a=extmap-allow-mixed
m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103 108 109 116 45
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=ice-ufrag:LIdv
a=ice-pwd:nSrAqIbXVlJ3Bws2Sa9ZDRba
a=ice-options:trickle
a=fingerprint:sha-256 8F:45:5B:FC:B0:48:64:0B:3D:AB:BE:34:C0:1E:0B:63:A3:62:52:30:20:87:8D:9D:B6:39:3B:14:3A:38:5D:92
a=setup:actpass
a=mid:0
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=extmap:5 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay
a=extmap:9 urn:ietf:params:rtp-hdrext:sdes:mid
a=recvonly
a=rtcp-mux
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 nack pli
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
a=rtpmap:102 H264/90000
a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f
a=rtpmap:103 rtx/90000
a=fmtp:103 apt=102
a=rtpmap:108 H264/90000
a=rtcp-fb:108 nack pli
a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f
a=rtpmap:109 rtx/90000
a=fmtp:109 apt=108
a=rtpmap:116 H264/90000
a=fmtp:116 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f
a=rtpmap:45 AV1/90000
a=candidate:1 1 udp 2113937151 8b2f2b0e-7f0a-4b0f-9f0b-3d0f0c0e0a01.local 51000 typ host
a=end-of-candidates
"""


class App:
    """The WHEP service over one camera called ``door`` that always runs."""

    def __init__(self, max_viewers: int = 16) -> None:
        self.hubs: dict[str, Hub] = {}
        self.service = WhepService(self._hub_for, max_viewers, loopback_only=True)
        self.api = FastAPI()
        self.api.include_router(self.service.router)
        self.api.add_exception_handler(SignallingError, _refuse)
        self._stop = threading.Event()
        self._camera = threading.Thread(target=self._play, name="camera")

    @property
    def sessions(self) -> int:
        """Open or being opened."""
        return len(self.service._sessions)

    def start(self) -> None:
        self._camera.start()

    def stop(self) -> None:
        """Stop the camera; its viewers stay."""
        self._stop.set()
        self._camera.join()

    def _hub_for(self, camera_id: str, codec: Any) -> Hub:
        if camera_id != "door":
            raise SignallingError(f"no camera {camera_id!r}; there are: door", 404)
        if codec not in self.hubs:
            self.hubs[codec] = Hub("door", _same, codec=codec, bitrate=600_000)
        return self.hubs[codec]

    def _play(self) -> None:
        started_at, index = time.monotonic(), 0
        while not self._stop.wait(max(0.0, started_at + index / RATE - time.monotonic())):
            shown = frame(index)
            for hub in list(self.hubs.values()):
                hub.show(shown, Tracks.empty())
            index += 1


def _same(picture: VideoFrame, tracks: Tracks) -> VideoFrame:
    return picture


async def _refuse(request: Any, error: Exception) -> JSONResponse:
    assert isinstance(error, SignallingError)
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else {}
    return JSONResponse({"error": str(error)}, error.status, headers)


@asynccontextmanager
async def running(max_viewers: int = 16) -> AsyncIterator[tuple[App, httpx.AsyncClient]]:
    app = App(max_viewers)
    app.start()
    transport = httpx.ASGITransport(app=app.api)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://lookout") as http:
            yield app, http
    finally:
        await app.service.close()
        app.stop()
        await until(lambda: not encoder_threads())


# Pictures


@pytest.mark.parametrize("codec", ["h264", "vp8"])
async def test_two_peers_share_one_encoder_and_see_each_frame_at_its_time(codec: str) -> None:
    seen: list[tuple[int, int]] = []

    def read(picture: VideoFrame) -> None:
        value = barcode.read(np.ascontiguousarray(planes_of(picture)[0]))
        assert value is not None, "every picture is whole"
        assert picture.pts is not None
        seen.append((value, picture.pts))

    async with running() as (app, http):
        first = AiortcPeer(http, "door", codec=codec, on_picture=read)
        await first.join()
        await first.wait_for(lambda peer: peer.pictures >= 20)
        second = AiortcPeer(http, "door", codec=codec)
        await second.join()
        await second.wait_for(lambda peer: peer.pictures >= 20)
        hub = app.hubs[codec]
        print(
            f"{codec}: first picture after {first.first_picture_s:.3f} s and {second.first_picture_s:.3f} s"
        )
        assert list(app.hubs) == [codec]
        assert (hub.viewers, hub.encoder_starts, len(encoder_threads())) == (2, 1, 1)
        # A picture repeated for the second one's keyframe has a timestamp of its own; the others' must
        # be their frames' (the barcode counts frames, RTP 3000 ticks each).
        origins = [pts - 3000 * value for value, pts in seen]
        usual = max(set(origins), key=origins.count)
        assert sum(origin == usual for origin in origins) >= len(origins) - 2
        assert all(later[1] > earlier[1] for earlier, later in pairwise(seen))
        await first.leave()
        await until(lambda: hub.viewers == 1)
        await second.wait_for(lambda peer: peer.pictures >= 30)
        await second.leave()
        assert app.sessions == 0
        await until(lambda: not encoder_threads())


async def test_the_first_packets_are_a_keyframe() -> None:
    async with running() as (_, http):
        first = AiortcPeer(http, "door", codec="h264")
        await first.join()
        await first.wait_for(lambda peer: peer.pictures >= 5)
        payloads: list[bytes] = []
        second = AiortcPeer(http, "door", codec="h264")
        second.on_packet = lambda packet: payloads.append(packet.payload)
        await second.join()
        await second.wait_for(lambda peer: peer.packet_count >= 3)
        assert payloads[0][0] & 31 in (24, 7), "parameter sets first (alone or in a STAP-A)"
        for peer in (first, second):
            await peer.leave()


async def test_a_lost_picture_is_repaired_by_a_keyframe() -> None:
    async with running() as (app, http):
        peer = AiortcPeer(http, "door", codec="h264")
        await peer.join()
        await peer.wait_for(lambda peer: peer.pictures >= 15)
        before = app.hubs["h264"].keyframes
        for _ in range(5):
            await peer.send_pli()
        await until(lambda: app.hubs["h264"].keyframes > before)
        await asyncio.sleep(0.2)
        assert app.hubs["h264"].keyframes == before + 1, "five reports, one keyframe"
        await peer.leave()


async def test_lost_packets_are_sent_again_or_repaired() -> None:
    numbers: list[int] = []
    retransmitted: list[RtpPacket] = []
    async with running() as (app, http):
        peer = AiortcPeer(http, "door", codec="h264")

        def note(packet: RtpPacket) -> None:
            if packet.ssrc == peer.media_ssrc:
                numbers.append(packet.sequence_number)
            else:
                retransmitted.append(packet)

        peer.on_packet = note
        await peer.join()
        await peer.wait_for(lambda peer: peer.pictures >= 15)
        lost = numbers[-5:-2]
        await peer.send_nack(*lost)
        await until(lambda: len(retransmitted) == 3)
        assert [int.from_bytes(packet.payload[:2], "big") for packet in retransmitted] == lost
        before = app.hubs["h264"].keyframes
        await peer.send_nack((numbers[0] - 1000) & 0xFFFF)
        await until(lambda: app.hubs["h264"].keyframes > before)
        await peer.leave()


async def test_sender_reports_hold_on_to_the_pictures_capture_time_when_one_is_repeated() -> None:
    """The pairs of wall clock and timestamp lie on one line, whatever is sent again for whom."""
    pairs: list[tuple[float, int]] = []
    async with running() as (app, http):
        first, second = AiortcPeer(http, "door", codec="h264"), AiortcPeer(http, "door", codec="h264")
        await first.join()
        receiver: Any = first.connection.getTransceivers()[0].receiver
        handle = receiver._handle_rtcp_packet

        async def note(packet: Any) -> None:
            if isinstance(packet, RtcpSrPacket):
                info = packet.sender_info
                pairs.append((info.ntp_timestamp / (1 << 32), info.rtp_timestamp))
            await handle(packet)

        receiver._handle_rtcp_packet = note
        await first.wait_for(lambda peer: len(pairs) >= 1)
        app.stop()
        await asyncio.sleep(1.0)
        sent = len(pairs)
        await second.join()
        await second.wait_for(lambda peer: peer.packet_count > 0)
        await first.wait_for(lambda peer: len(pairs) >= sent + 2)
        origins = [ntp_s - timestamp / 90_000 for ntp_s, timestamp in pairs]
        print(f"{len(pairs)} reports, spread {max(origins) - min(origins):.4f} s")
        assert max(origins) - min(origins) < 0.1
        for peer in (first, second):
            await peer.leave()


async def test_a_full_socket_fills_no_memory_and_goes_on_when_it_has_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Loopback's UDP sockets never fill; one of the Unix family does after a few packets that nobody reads."""
    async with running() as (app, http):
        slow, other = AiortcPeer(http, "door"), AiortcPeer(http, "door")
        for peer in (slow, other):
            await peer.join()
            await peer.wait_for(lambda peer: peer.pictures >= 5)
        session = next(iter(app.service._sessions.values()))
        address = str(tmp_path / "full")
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as writer,
        ):
            reader.bind(address)
            reader.setblocking(False)
            writer.setblocking(False)
            writer.connect(address)
            loop = asyncio.get_running_loop()
            full, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=writer)
            route = session.peer._sender._route
            monkeypatch.setattr(session.peer._sender, "_route", lambda: (full, None))
            await until(lambda: full.get_write_buffer_size() > 0)
            waiting, dropped, pictures = full.get_write_buffer_size(), session.viewer.dropped, other.pictures
            await asyncio.sleep(1.0)
            print(f"{waiting} bytes wait, {session.viewer.dropped - dropped} units dropped")
            assert full.get_write_buffer_size() == waiting, "nothing is added to a full socket"
            assert session.viewer.dropped > dropped + RATE / 2
            assert len(session.viewer._queue) <= QUEUE_UNITS
            assert other.pictures - pictures > 0.8 * RATE
            sent = session.peer.packets_sent
            loop.add_reader(reader, lambda: reader.recv(4096))
            await until(lambda: session.peer.packets_sent > sent + 20)
            loop.remove_reader(reader)
            monkeypatch.setattr(session.peer._sender, "_route", route)
            full.abort()
        pictures = slow.pictures
        await slow.wait_for(lambda peer: peer.pictures > pictures + 5)
        for peer in (slow, other):
            await peer.leave()


async def test_a_machine_without_a_network_is_watched_over_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: [])
    async with running() as (_, http):
        peer = AiortcPeer(http, "door", loopback=True)
        await peer.join()
        await peer.wait_for(lambda peer: peer.pictures >= 5)
        await peer.leave()


# Viewers that fail


async def test_a_killed_viewer_is_noticed_and_disturbs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whep, "HOLD_AFTER_S", 2.0)
    monkeypatch.setattr(whep, "SILENCE_TIMEOUT_S", 3.0)
    async with running() as (app, http):
        killed, other = AiortcPeer(http, "door"), AiortcPeer(http, "door")
        for peer in (killed, other):
            await peer.join()
            await peer.wait_for(lambda peer: peer.pictures >= 5)
        await killed.kill()
        pictures, started_at = other.pictures, time.monotonic()
        await until(lambda: app.sessions == 1, 8)
        elapsed_s = time.monotonic() - started_at
        print(
            f"noticed after {elapsed_s:.1f} s; the other got {other.pictures - pictures} pictures meanwhile"
        )
        assert elapsed_s > 1.5
        assert other.pictures - pictures > 0.8 * RATE * elapsed_s
        assert app.hubs["h264"].viewers == 1
        await other.leave()


async def test_a_frozen_process_disturbs_nobody_and_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A viewer in a process of its own is stopped for a while, then killed."""
    monkeypatch.setattr(whep, "HOLD_AFTER_S", 1.5)
    async with running() as (app, http), listening(app) as url:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=bench._watch, args=(f"{url}/whep/door", 1, theirs), daemon=True)
        process.start()
        assert await bench._receive(ours) == "joined"
        assert process.pid is not None
        other = AiortcPeer(http, "door")
        await other.join()
        await other.wait_for(lambda peer: peer.pictures >= 5)
        frozen = next(s for s in app.service._sessions.values() if s.peer.packets_sent)
        os.kill(process.pid, signal.SIGSTOP)
        pictures, started_at = other.pictures, time.monotonic()
        await until(lambda: frozen.viewer._held, 6)
        elapsed_s = time.monotonic() - started_at
        assert other.pictures - pictures > 0.8 * RATE * elapsed_s
        sent = frozen.peer.packets_sent
        await asyncio.sleep(0.5)
        assert frozen.peer.packets_sent == sent, "nothing is sent to who does not listen"
        os.kill(process.pid, signal.SIGCONT)
        await until(lambda: frozen.peer.packets_sent > sent, 6)
        assert app.sessions == 2
        process.kill()
        await other.leave()


async def test_a_sender_that_breaks_ends_its_session_visibly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as (app, http):
        broken, other = AiortcPeer(http, "door"), AiortcPeer(http, "door")
        for peer in (broken, other):
            await peer.join()
            await peer.wait_for(lambda peer: peer.pictures >= 5)
        session = next(iter(app.service._sessions.values()))

        def packetised(unit: EncodedUnit, unix_s: float) -> Any:
            raise ArithmeticError("a bug of ours")

        monkeypatch.setattr(session.peer._sender._stream, "packetised", packetised)
        await until(lambda: app.sessions == 1)
        assert "a bug of ours" in caplog.text
        pictures = other.pictures
        await other.wait_for(lambda peer: peer.pictures > pictures + 10)
        await broken.close()
        await other.leave()


async def test_who_never_connects_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whep, "CONNECT_TIMEOUT_S", 0.5)
    async with running() as (app, http):
        response = await http.post("/whep/door", content=OFFER, headers=SDP)
        assert response.status_code == 201
        assert app.sessions == 1
        await until(lambda: app.sessions == 0, 4)
        assert app.hubs["h264"].units == 0, "nothing was encoded for it"


async def test_a_session_lasts_until_its_sockets_are_closed() -> None:
    """One that counts as gone earlier is waited for by nobody: the server's end would leave its sockets open."""
    async with running() as (app, http):
        await http.post("/whep/door", content=OFFER, headers=SDP)
        (session,) = app.service._sessions.values()
        close, closed = session.peer.close, asyncio.Event()

        async def slowly() -> None:
            await asyncio.sleep(0.3)
            await close()
            closed.set()

        session.peer.close = slowly  # type: ignore[method-assign]
        session.end("for this test")
        await asyncio.sleep(0.05)
        assert app.sessions == 1
        await app.service.close()
        assert closed.is_set()
        assert app.sessions == 0


async def test_a_good_bye_is_noticed_at_once() -> None:
    async with running() as (app, http):
        peer = AiortcPeer(http, "door")
        await peer.join()
        await peer.wait_for(lambda peer: peer.pictures >= 3)
        await peer.close()
        await until(lambda: app.sessions == 0, 2)


async def test_close_ends_every_session_within_a_second_and_leaves_nothing_behind() -> None:
    async with running() as (app, http):
        tasks = asyncio.all_tasks()
        peers = [AiortcPeer(http, "door") for _ in range(4)]
        for peer in peers:
            await peer.join()
        await peers[-1].wait_for(lambda peer: peer.pictures >= 3)
        started_at = time.monotonic()
        await app.service.close()
        assert time.monotonic() - started_at < 1
        assert app.sessions == 0
        response = await http.post("/whep/door", content=OFFER, headers=SDP)
        assert response.status_code == 503
        for peer in peers:
            await peer.close()
        await until(lambda: asyncio.all_tasks() <= tasks)


# Signalling


async def test_the_answer_says_what_will_be_sent() -> None:
    async with running() as (_, http):
        response = await http.post("/whep/door", content=OFFER, headers=SDP)
        assert response.status_code == 201
        assert response.headers["content-type"] == "application/sdp"
        assert response.headers["location"].startswith("/whep/door/")
        assert response.headers["etag"]
        lines = response.text.splitlines()
        assert next(line for line in lines if line.startswith("m=")).split()[3] == "108", (
            "constrained baseline first"
        )
        assert "a=extmap:5 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay" in lines
        assert "a=sendonly" in lines
        assert any(" 127.0.0.1 " in line for line in lines if line.startswith("a=candidate"))
        assert not any(".local" in line for line in lines)


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        (lambda sdp: "", 400, "one video section"),
        (lambda sdp: "hello", 400, ""),
        (lambda sdp: "\0" * 5000, 400, ""),
        (lambda sdp: sdp.replace("m=video 9", "m=video nine"), 400, ""),
        (lambda sdp: sdp.replace("a=ice-pwd:nSrAqIbXVlJ3Bws2Sa9ZDRba\n", ""), 400, "password"),
        (lambda sdp: sdp.replace("a=rtcp-mux\n", ""), 400, "RTCP mux"),
        (lambda sdp: "\n".join(x for x in sdp.split("\n") if "fingerprint" not in x), 400, "fingerprint"),
        (lambda sdp: sdp.replace("a=recvonly", "a=sendonly"), 400, "to receive, got sendonly"),
        (lambda sdp: sdp.replace("m=video", "m=audio"), 400, "one video section"),
        (
            lambda sdp: sdp + sdp[sdp.index("m=video") :].replace("a=mid:0", "a=mid:1"),
            400,
            "one video section",
        ),
        (lambda sdp: sdp + "m=audio 9 UDP/TLS/RTP/SAVPF 0\n" * 400, 400, "one video section"),
        (lambda sdp: sdp.replace("H264", "H265").replace("VP8", "VP9"), 406, "H.264 baseline"),
        (
            lambda sdp: sdp.replace("packetization-mode=1", "packetization-mode=0").replace("VP8", "VP9"),
            406,
            "H.264",
        ),
        (lambda sdp: sdp + "a=x:" + "y" * MAX_BODY_BYTES, 413, "65536 bytes"),
    ],
)
async def test_offers_that_cannot_be_used_are_refused(
    change: Callable[[str], str], status: int, says: str
) -> None:
    async with running() as (app, http):
        response = await http.post("/whep/door", content=change(OFFER), headers=SDP)
        print(response.status_code, response.text)
        assert response.status_code == status
        assert says in response.json()["error"]
        assert "\n" not in response.json()["error"]
        assert app.sessions == 0


async def test_requests_of_the_wrong_kind_are_refused() -> None:
    async with running(max_viewers=1) as (_, http):
        assert (await http.post("/whep/door", content=OFFER)).status_code == 415
        assert (await http.post("/whep/door", content=b"\xff\xfe", headers=SDP)).status_code == 400
        unknown = await http.post("/whep/window", content=OFFER, headers=SDP)
        assert (unknown.status_code, unknown.json()["error"]) == (404, "no camera 'window'; there are: door")
        assert (await http.delete("/whep/door/none")).status_code == 404
        assert (await http.patch("/whep/door/none", content="", headers=FRAGMENT)).status_code == 404
        assert (await http.get("/whep/door")).status_code == 405
        options = await http.options("/whep/door")
        assert (options.status_code, options.headers["accept-post"]) == (204, "application/sdp")
        taken = await http.post("/whep/door", content=OFFER, headers=SDP)
        full = await http.post("/whep/door", content=OFFER, headers=SDP)
        assert (full.status_code, full.headers["retry-after"]) == (503, "5")
        assert (await http.delete(taken.headers["location"])).status_code == 200
        assert (await http.delete(taken.headers["location"])).status_code == 404
        assert (await http.post("/whep/door", content=OFFER, headers=SDP)).status_code == 201


async def test_trickled_candidates() -> None:
    async with running() as (_, http):
        joined = await http.post("/whep/door", content=OFFER, headers=SDP)
        path, etag = joined.headers["location"], joined.headers["etag"]
        good = TRICKLE + "a=candidate:1 1 udp 2113937151 192.0.2.7 51000 typ host\r\na=end-of-candidates\r\n"
        headers = {**FRAGMENT, "If-Match": etag}
        assert (await http.patch(path, content=good, headers=headers)).status_code == 204
        assert (await http.patch(path, content=good, headers=FRAGMENT)).status_code == 204
        hidden = TRICKLE + "a=candidate:2 1 udp 1 0a1b.local 51000 typ host\r\n"
        assert (await http.patch(path, content=hidden, headers=headers)).status_code == 204
        malformed = TRICKLE + "a=candidate:1 1 udp\r\n"
        assert (await http.patch(path, content=malformed, headers=headers)).status_code == 400
        restart = good.replace("LIdv", "Othr")
        assert (await http.patch(path, content=restart, headers=headers)).status_code == 422
        stale = {**FRAGMENT, "If-Match": '"another"'}
        assert (await http.patch(path, content=good, headers=stale)).status_code == 412
        assert (await http.patch(path, content=good, headers=SDP)).status_code == 415


TRICKLE = "a=ice-ufrag:LIdv\r\na=ice-pwd:nSrAqIbXVlJ3Bws2Sa9ZDRba\r\nm=video 9 RTP/AVP 0\r\na=mid:0\r\n"


def candidates(first: int, count: int) -> str:
    """Candidate lines of addresses for documentation (RFC 5737): nobody is there."""
    return "".join(
        f"a=candidate:{n} 1 udp {n} 192.0.2.{n} 5000 typ host\r\n" for n in range(first, first + count)
    )


async def test_a_session_takes_a_bounded_number_of_candidates() -> None:
    async with running() as (app, http):
        fitting, more = OFFER + candidates(1, MAX_CANDIDATES - 2), OFFER + candidates(1, MAX_CANDIDATES + 1)
        assert (await http.post("/whep/door", content=more, headers=SDP)).status_code == 413
        # What another reader of SDP takes for a line of its own counts as one.
        hidden = OFFER + "a=x:\x0b" + candidates(1, MAX_CANDIDATES + 1).replace("\r\n", "\x0b")
        assert (await http.post("/whep/door", content=hidden, headers=SDP)).status_code == 413
        joined = await http.post("/whep/door", content=fitting, headers=SDP)
        assert joined.status_code == 201
        path = joined.headers["location"]
        (session,) = app.service._sessions.values()
        ice = session.peer._connection.getTransceivers()[0].receiver.transport.transport

        async def trickle(first: int, count: int) -> tuple[int, int]:
            content = TRICKLE + candidates(first, count)
            status = (await http.patch(path, content=content, headers=FRAGMENT)).status_code
            return status, len(ice.getRemoteCandidates())

        assert await trickle(100, 3) == (413, MAX_CANDIDATES - 2), "none of them is taken"
        assert await trickle(100, 2) == (204, MAX_CANDIDATES)
        assert await trickle(100, 2) == (204, MAX_CANDIDATES), "who repeats himself says nothing new"
        assert await trickle(102, 1) == (413, MAX_CANDIDATES)
        refused = await http.patch(path, content=TRICKLE + candidates(1, 200), headers=FRAGMENT)
        assert (refused.status_code, "at most 32 ICE candidates" in refused.json()["error"]) == (413, True)


@pytest.mark.parametrize(
    ("address", "port", "kind"),
    [
        ("example.org", 5000, "host"),
        ("localhost", 5000, "host"),
        ("192.0.2", 5000, "host"),
        ("fe80::1%eth0", 5000, "host"),
        ("192.0.2.7", 0, "host"),
        ("192.0.2.7", 65536, "host"),
        ("192.0.2.7", -1, "host"),
        ("192.0.2.7", "ssh", "host"),
        ("192.0.2.7", 5000, "guest"),
    ],
)
async def test_a_candidate_is_an_address_a_port_and_a_known_type(
    address: str, port: int | str, kind: str
) -> None:
    async with running() as (_, http):
        line = f"a=candidate:1 1 udp 1 {address} {port} typ {kind}\r\n"
        offered = await http.post("/whep/door", content=OFFER + line, headers=SDP)
        joined = await http.post("/whep/door", content=OFFER, headers=SDP)
        trickled = await http.patch(joined.headers["location"], content=TRICKLE + line, headers=FRAGMENT)
        for response in (offered, trickled):
            assert response.status_code == 400
            assert "expected an IP address, a port from 1 to 65535" in response.json()["error"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_offer_is_our_fault(data: st.DataObject) -> None:
    """Whatever is done to an offer: it is answered or refused, never an exception of another kind."""
    lines = OFFER.splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, len(lines) - 1))
        line = lines[where]
        cut = data.draw(st.integers(0, len(line)))
        junk = data.draw(
            st.sampled_from(["", " ", ":", "-1", "99999999999999999999", "\u00e9", "a=", "m=video"])
        )
        lines[where] = line[:cut] + junk + data.draw(st.sampled_from(["", line[cut:]]))

    async def attempt() -> None:
        service = WhepService(lambda camera_id, codec: Hub("door", _same, codec=codec, bitrate=1), 4, True)
        with contextlib.suppress(SignallingError):
            await service.join("door", "\n".join(lines))
        await service.close()

    asyncio.run(attempt())


def test_unreachable_candidates_are_taken_out_of_an_offer() -> None:
    cleaned = without_unreachable_candidates(OFFER + "a=candidate:2 1 udp 1 192.0.2.9 5000 typ host\n")
    assert ".local" not in cleaned
    assert "end-of-candidates" not in cleaned
    assert "192.0.2.9" in cleaned
    assert cleaned.count("\r\n") == OFFER.count("\n") - 1
    assert parse_fragment("a=candidate:1 1 udp 1 x.LOCAL 1 typ host\n").candidates == ()
    browser = "1 1 tcp 1 2001:db8::7 9 typ srflx raddr 0.0.0.0 rport 0 tcptype active generation 0"
    assert [c.candidate for c in parse_fragment(f"a=candidate:{browser}\n").candidates] == [browser]


# RTP


def _stream(**negotiated: Any) -> RtpStream:
    return RtpStream(RtpFormat(ssrc=7, payload_type=108, mid="0", rtx_ssrc=8, **negotiated))


@pytest.mark.parametrize(
    "negotiated",
    [
        {},
        {"mid_id": 9},
        {"mid_id": 9, "abs_send_time_id": 2, "playout_delay_id": 5},
        {"abs_send_time_id": 14},
    ],
)
def test_packets_parse_with_another_implementation(negotiated: dict[str, int]) -> None:
    stream = _stream(**negotiated)
    unit = EncodedUnit((b"one", b"two", b"three"), (1 << 32) + 5, True, 0.0, 11)
    raw = list(stream.packetised(unit, unix_s=1.0e9))
    packets = [RtpPacket.parse(data) for data in raw]
    assert [packet.payload for packet in packets] == [b"one", b"two", b"three"]
    assert [packet.marker for packet in packets] == [0, 0, 1]
    assert {(packet.ssrc, packet.payload_type, packet.timestamp) for packet in packets} == {(7, 108, 5)}
    assert [(p.sequence_number - packets[0].sequence_number) & 0xFFFF for p in packets] == [0, 1, 2]
    if negotiated:
        words = int.from_bytes(raw[0][14:16], "big")
        extensions = dict(unpack_header_extensions(0xBEDE, raw[0][16 : 16 + 4 * words]))
        send_time = (ntp_time(1.0e9) >> 14 & 0xFFFFFF).to_bytes(3, "big")
        expected = {"mid_id": b"0", "abs_send_time_id": send_time, "playout_delay_id": b"\0\0\0"}
        assert extensions == {number: expected[name] for name, number in negotiated.items()}


@pytest.mark.parametrize("rtx_payload_type", [None, 109])
def test_history_is_long_and_bounded(rtx_payload_type: int | None) -> None:
    stream = _stream(rtx_payload_type=rtx_payload_type)
    sent = []
    for number in range(HISTORY_PACKETS + 10):
        unit = EncodedUnit((number.to_bytes(4, "big"),), number, False, 0.0, 4)
        sent += [RtpPacket.parse(data) for data in stream.packetised(unit, 0.0)]
    assert stream.retransmission(sent[9].sequence_number) is None
    again = stream.retransmission(sent[10].sequence_number)
    assert again is not None
    packet = RtpPacket.parse(again)
    assert (packet.timestamp, packet.marker) == (10, 1)
    if rtx_payload_type is None:
        assert (packet.ssrc, packet.payload) == (7, sent[10].payload)
    else:
        number = sent[10].sequence_number.to_bytes(2, "big")
        assert (packet.ssrc, packet.payload_type, packet.payload) == (8, 109, number + sent[10].payload)


# The contract with aiortc


async def test_aiortc_still_has_what_the_adapter_reaches_into() -> None:
    """Fails on a version whose inside changed, naming what is missing."""
    connection = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
    transceiver = connection.addTransceiver("video", direction="sendonly")
    transport = transceiver.receiver.transport
    ice = transport.transport._connection
    expected = [
        (transceiver, aiortc_adapter.SENDER_SLOT),
        (transceiver, "_headerExtensions"),
        *(
            (transceiver.sender, name)
            for name in ("_ssrc", "_rtx_ssrc", "_stream_id", "_track_id", "_enabled")
        ),
        *(
            (transport, name)
            for name in ("_register_rtp_sender", "_unregister_rtp_sender", "_tx_srtp", "state")
        ),
        *((ice, name) for name in ("_nominated", "get_component_candidates", "check_incoming")),
        (aioice.ice.StunProtocol, "datagram_received"),
    ]
    missing = [f"{type(owner).__name__}.{name}" for owner, name in expected if not hasattr(owner, name)]
    await connection.close()
    assert not missing
    assert isinstance(ice, aioice.Connection)
    ours, theirs = aiortc_adapter._Sender, aiortc.RTCRtpSender
    for name in ("send", "stop", "setTransport", "transport", "getStats", "_handle_rtcp_packet", "kind"):
        assert hasattr(theirs, name), name
        assert hasattr(ours, name), name


def test_another_aiortc_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiortc, "__version__", "1.17.0")
    with pytest.raises(
        DeviceUnavailable, match=r"aiortc 1\.17\.0 is installed, but lookout works with 1\.16\."
    ):
        aiortc_adapter.check_version()


@asynccontextmanager
async def listening(app: App) -> AsyncIterator[str]:
    """The app on a real port, for viewers in other processes."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app.api, log_level="warning", lifespan="off"))
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving
