"""Viewers in a process of their own: they join by WHEP, count, and say what they got. Know nothing of the sender.

They go through ICE, DTLS and RTCP like any other, then count packets without decrypting them, so that they leave
the machine to the sender.
"""

from __future__ import annotations

import asyncio
import json
import os
import urllib.request
from collections.abc import Sequence
from multiprocessing.connection import Connection
from urllib.parse import urljoin

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from stream.bench.counter import PacketCounter
from stream.errors import LookoutError

JOIN_TIMEOUT_S = 60.0


def watch(url: str, count: int, pipe: Connection, cores: Sequence[int] = ()) -> None:
    """The viewers' process: join, say so, count until told to leave; on ``cores`` where they are given."""
    if cores:
        os.sched_setaffinity(0, cores)
    asyncio.run(_watch_all(url, count, pipe))


async def _watch_all(url: str, count: int, pipe: Connection) -> None:
    joined = [await join(url) for _ in range(count)]
    pipe.send("joined")
    await asyncio.to_thread(pipe.recv)
    counters = [counter for _, counter, _ in joined]
    pipe.send(
        json.dumps(
            {
                "received": sum(c.received for c in counters),
                "missing": sum(c.missing for c in counters),
                "arrivals": [c.arrivals for c in counters],
            }
        )
    )
    await asyncio.gather(*(connection.close() for connection, _, _ in joined))


async def join(url: str) -> tuple[RTCPeerConnection, PacketCounter, str]:
    """One viewer: its connection, what it counts, and the address of its session."""
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    connection.addTransceiver("video", direction="recvonly")
    connected = asyncio.Event()

    @connection.on("connectionstatechange")
    def changed() -> None:
        if connection.connectionState == "connected":
            connected.set()

    await connection.setLocalDescription(await connection.createOffer())
    body = connection.localDescription.sdp.encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/sdp"})
    answer, location = await asyncio.to_thread(_post, request)
    await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await asyncio.wait_for(connected.wait(), 10)
    return connection, PacketCounter(connection), location


def _post(request: urllib.request.Request) -> tuple[str, str]:
    """The answer, and the address of the session."""
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.read().decode(), urljoin(request.full_url, response.headers["Location"])


async def receive(pipe: Connection) -> str:
    """What the viewers' process says next."""

    def receive() -> str:
        if not pipe.poll(JOIN_TIMEOUT_S):
            raise LookoutError(f"the benchmark's viewers did not answer within {JOIN_TIMEOUT_S:g} s")
        try:
            return str(pipe.recv())
        except EOFError as error:
            raise LookoutError("the benchmark's viewers ended early; their error is above") from error

    return await asyncio.to_thread(receive)
