"""What a viewer costs with aiortc's own sender, beside ``viewers``: the same camera, the same viewers.

Two ways, each with one peer connection a viewer: ``encode``, a track of pictures, which aiortc encodes
anew for every viewer; and ``packets``, a track of pictures that were encoded once for all, which aiortc
packetises, encrypts and sends. CPU is of the whole process.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import socket
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import aiortc.codecs.h264
import uvicorn
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.codecs.h264 import h264_depayload
from av import Packet, VideoFrame
from fastapi import FastAPI, Request
from fastapi.responses import Response

from stream.bench.texture import BITRATE, RATE, pictures
from stream.bench.watchers import receive, watch
from stream.encode import CLOCK_HZ, H264Encoder
from stream.errors import LookoutError
from stream.planes import writable

SETTLE_S = 1.5

Next = Callable[[int], Any]
"""A picture, or a packet, by its index."""


def run(seconds: float, viewers_encoding: int = 1, viewers_of_packets: int = 16) -> dict[str, float]:
    """CPU milliseconds a viewer and second, each way."""
    clip = pictures()
    aiortc.codecs.h264.DEFAULT_BITRATE = BITRATE
    packets = _encoded(clip)
    return {
        "encode": asyncio.run(_measure(lambda index: clip[index % len(clip)], viewers_encoding, seconds)),
        "packets": asyncio.run(
            _measure(lambda index: packets[index % len(packets)], viewers_of_packets, seconds)
        ),
    }


def _encoded(clip: Sequence[VideoFrame]) -> list[Any]:
    """The clip as the hub's encoder leaves it, made beforehand: it is not a viewer's cost."""
    encoder = H264Encoder(BITRATE, RATE)
    units = [
        encoder.encode(writable(picture), index * CLOCK_HZ // RATE, index == 0, 0.0)
        for index, picture in enumerate(clip)
    ]
    return [Packet(b"".join(map(h264_depayload, unit.payloads))) for unit in units]


class _Track(MediaStreamTrack):
    """Pictures or packets by the clock."""

    kind = "video"

    def __init__(self, next_one: Next) -> None:
        super().__init__()
        self._next, self._index, self._began = next_one, 0, time.monotonic()

    async def recv(self) -> Any:
        await asyncio.sleep(max(0.0, self._began + self._index / RATE - time.monotonic()))
        found = self._next(self._index)
        found.pts, found.time_base = self._index * CLOCK_HZ // RATE, Fraction(1, CLOCK_HZ)
        self._index += 1
        return found


async def _measure(next_one: Next, viewers: int, seconds: float) -> float:
    connections: list[RTCPeerConnection] = []
    app = FastAPI()

    @app.post("/whep/stock")
    async def join(request: Request) -> Response:
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connections.append(connection)
        await connection.setRemoteDescription(RTCSessionDescription((await request.body()).decode(), "offer"))
        connection.addTrack(_Track(next_one))
        (transceiver,) = connection.getTransceivers()
        codecs = RTCRtpSender.getCapabilities("video").codecs
        transceiver.setCodecPreferences(
            [codec for codec in codecs if codec.mimeType in ("video/H264", "video/rtx")]
        )
        await connection.setLocalDescription(await connection.createAnswer())
        headers = {"Location": f"/whep/stock/{len(connections)}"}
        return Response(connection.localDescription.sdp, 201, headers, media_type="application/sdp")

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        serving = asyncio.create_task(server.serve([listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/whep/stock"
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=watch, args=(url, viewers, theirs), daemon=True
        )
        process.start()
        try:
            await receive(ours)
            await asyncio.sleep(SETTLE_S)
            cpu, clock = time.process_time(), time.perf_counter()
            await asyncio.sleep(seconds)
            cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
            ours.send("leave")
            counted = json.loads(await receive(ours))
        finally:
            await asyncio.gather(*(connection.close() for connection in connections))
            server.should_exit = True
            await serving
            process.kill()
    shown = len(counted["arrivals"][0]) / (SETTLE_S + seconds)
    if shown < 0.9 * RATE:
        raise LookoutError(f"aiortc sent {shown:.0f} of {RATE} pictures a second: no figure to compare with")
    return round(1000 * cpu / clock / viewers, 1)
