"""The real app over cameras that are published to, and those who publish: aiortc here, FFmpeg elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription, VideoStreamTrack
from av import VideoFrame

from stream import barcode
from stream.config import AppConfig, CameraConfig, ServerConfig
from stream.detector import Detector
from stream.frames import Frame
from stream.pipeline import Pipeline
from stream.planes import views
from stream.server import create_app
from stream.webrtc.aiortc_adapter import _gather_soon
from tests.stream.watching import frame
from tests.stream.whep_app import listening as listening

SDP = {"Content-Type": "application/sdp"}


class Published:
    """A pipeline with the cameras ``phone`` and ``yard``, which are published to, and ``door``, which is not."""

    def __init__(self, detector: Detector, stall_s: float) -> None:
        cameras = {"phone": "whip", "yard": "whip", "door": "synthetic:320x180@30"}
        self.pipeline = Pipeline(
            AppConfig(
                cameras={
                    name: CameraConfig(source=source, stall_s=stall_s) for name, source in cameras.items()
                }
            ),
            detector,
        )
        self.seen: list[tuple[int | None, Frame]] = []  # of the phone: barcode and frame
        phone = self.pipeline.cameras["phone"]
        take = phone.take

        def see(frame: Frame) -> None:
            self.seen.append((barcode.read(views(frame.picture)[0]), frame))
            take(frame)

        phone.take = see  # type: ignore[method-assign]
        self.api = create_app(self.pipeline, ServerConfig())

    def said(self, camera: str) -> str:
        """The state of a camera and the reason for it."""
        status = self.pipeline.cameras[camera].status()
        return f"{status.state}: {status.reason}"


@asynccontextmanager
async def running(
    detector: Detector, stall_s: float = 5.0
) -> AsyncIterator[tuple[Published, httpx.AsyncClient]]:
    app = Published(detector, stall_s)
    app.pipeline.start()
    try:
        async with (
            app.api.router.lifespan_context(app.api),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app.api), base_url="http://127.0.0.1"
            ) as http,
        ):
            yield app, http
    finally:
        await asyncio.to_thread(app.pipeline.stop)


class Barcodes(VideoStreamTrack):
    """30 pictures a second, each with its number as a barcode; its timestamps start just before they wrap."""

    async def recv(self) -> VideoFrame:
        pts, time_base = await self.next_timestamp()
        picture = frame(pts // 3000).picture
        picture.pts, picture.time_base = pts, time_base
        return picture


class Publisher:
    """A WHIP client in this process.

    Args:
        codec: ``h264`` or ``vp8``, the only one offered.
        sound: also offer an audio section, as OBS does.
    """

    def __init__(
        self, http: httpx.AsyncClient, camera: str, *, codec: str = "vp8", sound: bool = False
    ) -> None:
        self._http = http
        self._camera = camera
        self.location = ""
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        if sound:
            self.connection.addTransceiver("audio", direction="sendonly")
        self._transceiver = self.connection.addTransceiver(Barcodes(), direction="sendonly")
        known = RTCRtpSender.getCapabilities("video").codecs
        self._transceiver.setCodecPreferences([c for c in known if c.name.lower() in (codec, "rtx")])

    async def offer(self) -> str:
        for transceiver in self.connection.getTransceivers():
            _gather_soon(transceiver.sender.transport.transport._connection, loopback=True)
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return str(self.connection.localDescription.sdp)

    async def publish(self) -> httpx.Response:
        """POST the offer, and begin to send if it is taken."""
        response = await self._http.post(f"/whip/{self._camera}", content=await self.offer(), headers=SDP)
        if response.status_code == 201:
            self.location = response.headers["location"]
            await self.connection.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
        return response

    def lose(self, which: Callable[[int, bool], bool]) -> list[int]:
        """From now on lose the media packets for which ``which(number, it is sent again)``; returns their numbers."""
        transport: Any = self._transceiver.sender.transport
        send = type(transport)._send_rtp
        again = {codec.payloadType for codec in self._transceiver._codecs if codec.name == "rtx"}
        lost: list[int] = []

        async def send_some(data: bytes) -> None:
            is_again, payload = data[1] & 0x7F in again, data[1] & 0x7F < 72 or data[1] & 0x7F > 79
            number = int.from_bytes(data[2:4], "big")
            if payload and which(number, is_again):
                lost.append(number)
            else:
                await send(transport, data)

        transport._send_rtp = send_some
        return lost

    async def leave(self) -> None:
        (await self._http.delete(self.location)).raise_for_status()
        await self.connection.close()

    async def kill(self) -> None:
        """Vanish: nothing more is said, then the sockets are gone."""
        ice = self._transceiver.sender.transport.transport._connection
        for protocol in ice._protocols:
            protocol.transport.sendto = lambda data, address=None: None
        await self.connection.close()


@asynccontextmanager
async def ffmpeg(url: str, profile: str, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """FFmpeg's own WHIP muxer in another process, sending the synthetic camera as H.264 until it is told to end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.stream.ffmpeg_publisher", url, profile, str(folder),
        stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        _, errors = await process.communicate()
        print(errors.decode())
