"""WHEP end to end in one process: real ICE, DTLS and SRTP between the app's sender and aiortc peers."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import aioice
import numpy as np
import pytest
from aiortc.rtp import RtcpSrPacket, RtpPacket
from av import VideoFrame

from stream import barcode
from stream.bench import watchers as bench
from stream.encode import EncodedUnit
from stream.webrtc import sessions, whep
from stream.webrtc.rendition import Rendition
from stream.webrtc.viewer import QUEUE_UNITS
from tests.aiortc_peer import AiortcPeer
from tests.stream.test_encode import planes_of
from tests.stream.watching import encoder_threads, until
from tests.stream.whep_app import OFFER, RATE, SDP, listening, running

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
        hub = app.hubs[Rendition(codec)]
        print(
            f"{codec}: first picture after {first.first_picture_s:.3f} s and {second.first_picture_s:.3f} s"
        )
        assert list(app.hubs) == [Rendition(codec)]
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
        before = app.hubs[Rendition("h264")].keyframes
        for _ in range(5):
            await peer.send_pli()
        await until(lambda: app.hubs[Rendition("h264")].keyframes > before)
        await asyncio.sleep(0.2)
        assert app.hubs[Rendition("h264")].keyframes == before + 1, "five reports, one keyframe"
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
        before = app.hubs[Rendition("h264")].keyframes
        await peer.send_nack((numbers[-1] + 1000) & 0xFFFF)
        await until(lambda: app.hubs[Rendition("h264")].keyframes > before)
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
            waiting, dropped, pictures = (
                full.get_write_buffer_size(),
                session.ladder.viewer.dropped,
                other.pictures,
            )
            await asyncio.sleep(1.0)
            print(f"{waiting} bytes wait, {session.ladder.viewer.dropped - dropped} units dropped")
            assert full.get_write_buffer_size() == waiting, "nothing is added to a full socket"
            assert session.ladder.viewer.dropped > dropped + RATE / 2
            assert len(session.ladder.viewer._queue) <= QUEUE_UNITS
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
    monkeypatch.setattr(sessions, "SILENCE_TIMEOUT_S", 3.0)
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
        assert other.pictures - pictures > 0.6 * RATE * elapsed_s
        assert app.hubs[Rendition("h264")].viewers == 1
        await other.leave()


async def test_a_frozen_process_disturbs_nobody_and_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A viewer in a process of its own is stopped for a while, then killed."""
    monkeypatch.setattr(whep, "HOLD_AFTER_S", 1.5)
    async with running() as (app, http), listening(app) as url:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=bench.watch, args=(f"{url}/whep/door", 1, theirs), daemon=True)
        process.start()
        try:
            assert await bench.receive(ours) == "joined"
            assert process.pid is not None
            other = AiortcPeer(http, "door")
            await other.join()
            await other.wait_for(lambda peer: peer.pictures >= 5)
            frozen = next(s for s in app.service._sessions.values() if s.peer.packets_sent)
            os.kill(process.pid, signal.SIGSTOP)
            pictures, started_at = other.pictures, time.monotonic()
            await until(lambda: frozen.ladder.viewer._held, 6)
            elapsed_s = time.monotonic() - started_at
            assert other.pictures - pictures > 0.6 * RATE * elapsed_s
            sent = frozen.peer.packets_sent
            await asyncio.sleep(0.5)
            assert frozen.peer.packets_sent == sent, "nothing is sent to who does not listen"
            os.kill(process.pid, signal.SIGCONT)
            await until(lambda: frozen.peer.packets_sent > sent, 6)
            assert app.sessions == 2
        finally:
            process.kill()  # a stopped one would hold up the end of the run
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

        def packetised(unit: EncodedUnit, now: Any, captured_at: float) -> Any:
            raise ArithmeticError("a bug of ours")

        monkeypatch.setattr(session.peer._sender.rtp.stream, "packetised", packetised)
        await until(lambda: app.sessions == 1)
        assert "a bug of ours" in caplog.text
        pictures = other.pictures
        await other.wait_for(lambda peer: peer.pictures > pictures + 10)
        await broken.close()
        await other.leave()


async def test_who_never_connects_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "CONNECT_TIMEOUT_S", 0.5)
    async with running() as (app, http):
        response = await http.post("/whep/door", content=OFFER, headers=SDP)
        assert response.status_code == 201
        assert app.sessions == 1
        await until(lambda: app.sessions == 0, 4)
        assert app.hubs[Rendition("h264")].units == 0, "nothing was encoded for it"


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
