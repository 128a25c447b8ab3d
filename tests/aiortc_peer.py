"""A WHEP viewer in this process: aiortc receives, and either decodes or only counts.

It speaks to anything that has ``post(path, ...)`` and ``delete(path)`` coroutines like httpx's, so
that it runs against an ASGI application or over the network.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import httpx2 as httpx
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RTCP_PSFB_PLI, RTCP_RTPFB_NACK, RtcpPsfbPacket, RtcpRtpfbPacket, RtpPacket
from av import VideoFrame

from stream.webrtc.aiortc_adapter import _gather_soon


class AiortcPeer:
    """One viewer.

    Args:
        http: where to join.
        camera: the camera's id.
        codec: ``h264`` or ``vp8``: the only one offered; None offers all.
        decode: pictures are decoded and given to ``on_picture``; otherwise RTP packets are counted
            and nothing else is done with them, which costs the least.
        on_picture: called with each decoded picture.
        loopback: offer 127.0.0.1 too.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        camera: str,
        *,
        codec: str | None = None,
        decode: bool = True,
        on_picture: Callable[[VideoFrame], None] | None = None,
        loopback: bool = False,
    ) -> None:
        self.packet_count = 0
        self.pictures = 0
        self.picture_shapes: set[tuple[int, int]] = set()
        self.joined_s: float | None = None  # from POST to the first packet
        self.first_picture_s: float | None = None
        self.location = ""
        self.headers: dict[str, str] = {}
        self.media_ssrc: int | None = None
        self.on_packet: Callable[[RtpPacket], None] | None = None
        self._http = http
        self._camera = camera
        self._codec = codec
        self._decode = decode
        self._on_picture = on_picture
        self._loopback = loopback
        self._started_at = 0.0
        self._reader: asyncio.Task[None] | None = None
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))

    async def join(self) -> None:
        """POST the offer and wait until the connection stands."""
        self._started_at = time.monotonic()
        transceiver = self.connection.addTransceiver("video", direction="recvonly")
        if self._codec is not None:
            known = RTCRtpReceiver.getCapabilities("video").codecs
            wanted = [c for c in known if c.name.lower() in (self._codec, "rtx")]
            transceiver.setCodecPreferences(wanted)
        self._tap(transceiver.receiver)
        if self._loopback:
            _gather_soon(self._ice(), loopback=True)
        await self.connection.setLocalDescription(await self.connection.createOffer())
        response = await self._http.post(
            f"/whep/{self._camera}",
            content=self.connection.localDescription.sdp,
            headers={"Content-Type": "application/sdp"},
        )
        response.raise_for_status()
        self.headers = dict(response.headers)
        self.location = response.headers["location"]
        await self.connection.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
        if self._decode:
            self._reader = asyncio.create_task(self._read(transceiver.receiver.track))

    async def wait_for(self, condition: Callable[[AiortcPeer], bool], timeout_s: float = 10.0) -> None:
        """Wait until ``condition(self)`` holds; raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while not condition(self):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"after {timeout_s:g} s: {self.packet_count} packets, {self.pictures} pictures, "
                    f"{self.connection.connectionState}"
                )
            await asyncio.sleep(0.01)

    async def send_pli(self) -> None:
        """Report a lost picture."""
        await self._send_rtcp(RtcpPsfbPacket(fmt=RTCP_PSFB_PLI, ssrc=1, media_ssrc=self._media()))

    async def send_nack(self, *lost: int) -> None:
        await self._send_rtcp(
            RtcpRtpfbPacket(fmt=RTCP_RTPFB_NACK, ssrc=1, media_ssrc=self._media(), lost=list(lost))
        )

    async def leave(self) -> None:
        """DELETE the session and close."""
        response = await self._http.delete(self.location)
        response.raise_for_status()
        await self.close()

    async def close(self) -> None:
        """Close the connection, with DTLS's and RTP's good-byes."""
        await self.connection.close()
        await self._end_reader()

    async def kill(self) -> None:
        """Vanish: nothing more is said to the server, then the sockets are gone."""
        for protocol in self._ice()._protocols:
            protocol.transport.sendto = lambda data, address=None: None
        await self.close()

    # Inside

    def _tap(self, receiver: Any) -> None:
        handle = receiver._handle_rtp_packet

        async def see(packet: RtpPacket, arrival_time_ms: int) -> None:
            self.packet_count += 1
            if self.media_ssrc is None:
                self.media_ssrc = packet.ssrc
                self.joined_s = time.monotonic() - self._started_at
            if self.on_packet is not None:
                self.on_packet(packet)
            if self._decode:
                await handle(packet, arrival_time_ms=arrival_time_ms)

        receiver._handle_rtp_packet = see

    async def _read(self, track: Any) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                picture = await track.recv()
                self.pictures += 1
                self.picture_shapes.add((picture.width, picture.height))
                if self.first_picture_s is None:
                    self.first_picture_s = time.monotonic() - self._started_at
                if self._on_picture is not None:
                    self._on_picture(picture)

    async def _end_reader(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader

    def _transport(self) -> Any:
        return self.connection.getTransceivers()[0].receiver.transport

    def _ice(self) -> Any:
        return self._transport().transport._connection

    def _media(self) -> int:
        assert self.media_ssrc is not None, "no packet has come yet"
        return self.media_ssrc

    async def _send_rtcp(self, packet: Any) -> None:
        await self._transport()._send_rtp(bytes(packet))
