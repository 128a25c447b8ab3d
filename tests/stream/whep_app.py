"""The WHEP service over one camera that always runs, and what a browser offers it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import httpx2 as httpx
import numpy as np
import uvicorn
from av import VideoFrame
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from stream.errors import SignallingError
from stream.frames import Tracks
from stream.webrtc.hub import Hub
from stream.webrtc.ice import IceServer
from stream.webrtc.rendition import Rendition, lower, offered
from stream.webrtc.source_hub import SourceHub
from stream.webrtc.whep import WhepService
from tests.stream.watching import HEIGHT, encoder_threads, frame, until

RATE = 30
HEIGHTS = (90,)
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


class Serving(Protocol):
    """Whatever has an application."""

    api: FastAPI


class App:
    """The WHEP service over one camera called ``door`` that always runs."""

    def __init__(self, max_viewers: int = 16, ice: Sequence[IceServer] = ()) -> None:
        self.hubs: dict[Rendition, Hub] = {}
        self.service = WhepService(self._camera, max_viewers, loopback_only=True, ice_servers=lambda: ice)
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

    def hub(self, rendition: Rendition) -> Hub:
        rendition = offered(rendition, HEIGHTS, HEIGHT)
        if rendition not in self.hubs:
            self.hubs[rendition] = Hub("door", rendition, same_picture, bitrate=600_000)
        return self.hubs[rendition]

    def source_hub(self) -> SourceHub:
        raise SignallingError("this camera is a loop in a test; leave out rendition=source", 406)

    def lower(self, rendition: Rendition) -> Rendition | None:
        return lower(rendition, HEIGHTS, HEIGHT)

    def _camera(self, camera_id: str) -> App:
        if camera_id != "door":
            raise SignallingError(f"no camera {camera_id!r}; there are: door", 404)
        return self

    def _play(self) -> None:
        started_at, index = time.monotonic(), 0
        while not self._stop.wait(max(0.0, started_at + index / RATE - time.monotonic())):
            shown = frame(index)
            for hub in list(self.hubs.values()):
                hub.show(shown, numbered(index))
            index += 1


def numbered(index: int) -> Tracks:
    """One track whose id is the frame's number."""
    one = np.ones(1, np.int64)
    box = np.array([[40, 60, 80, 120]], np.float32)
    return Tracks(box, one.astype(np.float32), 0 * one, index * one, one.astype(np.float32), one == 0)


def same_picture(picture: VideoFrame, tracks: Tracks) -> VideoFrame:
    return picture


async def _refuse(request: Any, error: Exception) -> JSONResponse:
    assert isinstance(error, SignallingError)
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else {}
    return JSONResponse({"error": str(error)}, error.status, headers)


@asynccontextmanager
async def running(
    max_viewers: int = 16, ice: Sequence[IceServer] = ()
) -> AsyncIterator[tuple[App, httpx.AsyncClient]]:
    app = App(max_viewers, ice)
    app.start()
    transport = httpx.ASGITransport(app=app.api)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://lookout") as http:
            yield app, http
    finally:
        await app.service.close()
        app.stop()
        await until(lambda: not encoder_threads())


@asynccontextmanager
async def listening(app: Serving) -> AsyncIterator[str]:
    """The app on a real port, for viewers and publishers in other processes."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app.api, log_level="warning", lifespan="off"))
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving
