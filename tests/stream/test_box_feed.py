"""Boxes on a WebSocket: each message is of a picture that this viewer was sent, and bears its timestamp."""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from aiortc.rtp import RtpPacket
from av import VideoFrame
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from stream import barcode
from stream import feed as feeds
from stream.encode import Codec, EncodedUnit
from stream.webrtc.boxes import FEED_UNITS
from stream.webrtc.rendition import Rendition
from tests.aiortc_peer import AiortcPeer
from tests.stream.test_encode import planes_of
from tests.stream.watching import until
from tests.stream.whep_app import OFFER, SDP, listening, running


def socket_of(url: str, location: str) -> Any:
    return connect(f"{url.replace('http', 'ws')}{location}/boxes", proxy=None)


async def last_words(socket: ClientConnection) -> tuple[int | None, str | None]:
    """Code and reason of its end."""
    with suppress(ConnectionClosed):
        while True:
            await asyncio.wait_for(socket.recv(), 5)
    return socket.close_code, socket.close_reason


@pytest.mark.parametrize("codec", ["h264", "vp8"])
async def test_each_message_is_of_a_picture_that_was_sent(codec: Codec) -> None:
    sent: list[int] = []
    shown: dict[int, int | None] = {}  # by timestamp after the first
    announced: dict[int, int] = {}
    sizes: set[tuple[int, int]] = set()

    def note(packet: RtpPacket) -> None:
        if packet.marker:
            sent.append(packet.timestamp)

    def read(picture: VideoFrame) -> None:
        assert picture.pts is not None
        shown[picture.pts] = barcode.read(np.ascontiguousarray(planes_of(picture)[0]))

    async with running() as (app, http), listening(app) as url:
        other = AiortcPeer(http, "door?boxes=data", codec=codec)
        await other.join()  # the hub's, but not the other's
        peer = AiortcPeer(http, "door?boxes=data", codec=codec, on_picture=read)
        peer.on_packet = note
        await peer.join()
        assert list(app.hubs) == [Rendition(codec, "data")]
        async with socket_of(url, peer.location) as socket:
            for number in range(40):
                if number == 15:  # from now on of another hub, with a clock of its own
                    assert (await http.put(f"{peer.location}?height=90")).status_code == 204
                message = await asyncio.wait_for(socket.recv(), 5)
                assert isinstance(message, bytes)
                timestamp, version, width, height, _, count, track = struct.unpack_from(">IBHHIHI", message)
                assert (version, count, len(message)) == (2, 1, 4 + 11 + 26)
                sizes.add((width, height))
                assert timestamp not in announced, "each picture is announced once"
                announced[timestamp] = track
        await until(lambda: sent[-1] > max(announced) and peer.pictures > 35)
        await peer.leave()
        await other.leave()
    assert sizes == {(320, 180), (160, 90)}
    first = sent.index(next(iter(announced)))
    assert sent[first : first + 40] == list(announced), "in order, and without a gap"
    pairs = [(track, shown.get((timestamp - sent[0]) % 2**32)) for timestamp, track in announced.items()]
    assert sum(barcode is not None for _, barcode in pairs) >= 30
    assert all(barcode in (track, None) for track, barcode in pairs), pairs


async def test_a_websocket_lives_no_longer_than_its_session() -> None:
    async with running() as (app, http), listening(app) as url:
        peer = AiortcPeer(http, "door?boxes=data", codec="vp8", decode=False)
        await peer.join()
        async with socket_of(url, peer.location) as first, socket_of(url, peer.location) as second:
            assert await last_words(first) == (1001, "another WebSocket has come for this session")
            await second.send("anybody there?")
            assert await last_words(second) == (1003, "nothing is expected from you here")
        async with socket_of(url, peer.location) as third:
            await asyncio.wait_for(third.recv(), 5)
            await peer.leave()
            assert await last_words(third) == (1001, "the session is over")
        with pytest.raises(InvalidStatus) as ended:
            await socket_of(url, peer.location)
        assert (ended.value.response.status_code, b"no such session" in ended.value.response.body) == (
            404,
            True,
        )
        drawn = await http.post("/whep/door", content=OFFER, headers=SDP)
        with pytest.raises(InvalidStatus) as refused:
            await socket_of(url, drawn.headers["location"])
        assert (refused.value.response.status_code, b"?boxes=data" in refused.value.response.body) == (
            409,
            True,
        )
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("feed-")]


async def test_who_does_not_read_costs_a_bounded_amount_and_holds_nobody_up() -> None:
    async with running() as (app, http), listening(app) as url:
        joined = await http.post("/whep/door?boxes=data", content=OFFER, headers=SDP)
        location = joined.headers["location"]
        (session,) = app.service._sessions.values()
        feed = session.feed
        assert feed is not None
        reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"), limit=1)
        writer.write(
            f"GET {location}/boxes HTTP/1.1\r\nHost: lookout\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        await until(lambda: feed._over is not None)
        unit = EncodedUnit((b"",), 0, True, 0.0, 0, record=bytes(6663))
        for number in range(4000):  # 26 MB, more than all buffers on the way
            feed.announce(replace(unit, timestamp=number))
            await asyncio.sleep(0)
        print(f"{feed.dropped} of 4000 dropped")
        assert feed.dropped > 1000
        assert len(feed._waiting) <= FEED_UNITS
        assert (await http.delete(location)).status_code == 200
        await until(lambda: feed._over is None, feeds.CLOSE_TIMEOUT_S + 2)
        await until(lambda: not [t for t in asyncio.all_tasks() if t.get_name().startswith("feed-")])
        writer.transport.abort()
        assert reader is not None
