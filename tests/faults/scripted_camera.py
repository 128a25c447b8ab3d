"""A camera that does what a test tells it to: RTSP (RFC 2326) over TCP, packet by packet.

GStreamer's server (``tests/rtsp_server.py``) is a camera as it should be. This one sends what real ones also send:
damaged packets, timestamps that jump, silence, parameter sets missing.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av import VideoFrame
from av.video.frame import PictureType

from stream.sources import SourceOptions
from stream.sources.synthetic import SyntheticSource
from stream.webrtc.payload import packetise_h264
from tests.stream.clips import LIVE

HZ = 90_000
VIDEO = "m=video 0 RTP/AVP 96\r\na=rtpmap:96 {encoding}/90000\r\na=control:track1\r\n"
SOUND = "m=audio 0 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\na=control:track2\r\n"
_HEADER = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=control:*\r\n"


@dataclass(frozen=True)
class Coded:
    """One compressed picture, Annex B; ``index`` is its number as shown, in ``rate`` a second."""

    data: bytes
    keyframe: bool
    index: int


def coded(
    frames: int,
    size: str = "320x180",
    *,
    rate: int = 30,
    keyframe_every: int = 15,
    first: int = 0,
    options: dict[str, str] | None = None,
) -> list[Coded]:
    """Pictures with barcodes, numbered from ``first``, as H.264 in the order in which they are sent."""
    source = SyntheticSource(f"synthetic:{size}@{rate}", SourceOptions(pace="lossless"))
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height = source.info.width, source.info.height
    encoder.pix_fmt, encoder.time_base, encoder.framerate = "yuv420p", Fraction(1, rate), rate
    encoder.gop_size, encoder.options = keyframe_every, LIVE if options is None else options

    def pictures() -> Iterator[VideoFrame | None]:
        for index in range(first, first + frames):
            picture = source.picture(index)
            picture.pict_type = PictureType.NONE
            yield picture
        yield None

    return [
        Coded(bytes(packet), packet.is_keyframe, packet.pts)
        for picture in pictures()
        for packet in encoder.encode(picture)
    ]


class Line:
    """The way to one client that plays."""

    def __init__(self, client: socket.socket, number: int, over: threading.Event) -> None:
        self.number = number  # of the client, from 0
        self.silence = over.wait  # for so many seconds, or until the test ends
        self._client = client
        self._sequence = 0

    def send(self, data: bytes, ticks: int) -> None:
        """One access unit of H.264, at a timestamp of 90 kHz."""
        payloads = packetise_h264(data)
        for place, payload in enumerate(payloads):
            self.packet(payload, ticks, marker=place == len(payloads) - 1)

    def packet(self, payload: bytes, ticks: int, marker: bool) -> None:
        header = struct.pack(">BBHII", 0x80, 96 | marker << 7, self._sequence & 0xFFFF, ticks % 2**32, 7)
        self._sequence += 1
        self.raw(b"$\0" + struct.pack(">H", len(header) + len(payload)) + header + payload)

    def raw(self, data: bytes) -> None:
        self._client.sendall(data)

    def play(
        self, pictures: list[Coded], rate: int = 30, ticks: Callable[[int], int] = lambda at: at
    ) -> None:
        """Send them, twice as fast as they say to save time; ``ticks`` changes their timestamps."""
        began = time.monotonic()
        for number, picture in enumerate(pictures):
            time.sleep(max(0.0, began + number / rate / 2 - time.monotonic()))
            self.send(picture.data, ticks(picture.index * HZ // rate))


@contextmanager
def scripted(
    play: Callable[[Line], None], sdp: Callable[[int], str] = lambda _: VIDEO.format(encoding="H264")
) -> Iterator[str]:
    """The camera's address. ``play`` is called for each client that plays, and its line is cut when it returns;
    ``sdp`` says what there is, to each of those who ask."""
    clients: list[socket.socket] = []
    over = threading.Event()
    threads: list[threading.Thread] = []
    described = played = 0

    def serve(client: socket.socket) -> None:
        nonlocal described, played
        with client, suppress(OSError):
            for method, sequence in _requests(client):
                body, headers = "", ""
                if method == "DESCRIBE":
                    body = _HEADER + sdp(described)
                    headers = "Content-Type: application/sdp\r\n"
                    described += 1
                elif method == "SETUP":
                    headers = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
                answer = f"RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\nSession: 1\r\n{headers}"
                client.sendall(f"{answer}Content-Length: {len(body)}\r\n\r\n{body}".encode())
                if method == "PLAY":
                    played += 1
                    play(Line(client, played - 1, over))
                    return

    def accept(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                clients.append(client)
                threads.append(threading.Thread(target=serve, args=(client,)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threads.append(threading.Thread(target=accept, args=(server,)))
        threads[0].start()
        try:
            yield f"rtsp://127.0.0.1:{server.getsockname()[1]}/camera"
        finally:
            over.set()
            for listening in (server, *clients):
                with suppress(OSError):
                    listening.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(5)


def _requests(client: socket.socket) -> Iterator[tuple[str, str]]:
    """Method and CSeq of each request."""
    waiting = b""
    while data := client.recv(4096):
        waiting += data
        while b"\r\n\r\n" in waiting:
            request, waiting = waiting.split(b"\r\n\r\n", 1)
            lines = request.decode().split("\r\n")
            (sequence,) = [line[5:].strip() for line in lines if line.startswith("CSeq:")]
            yield lines[0].split()[0], sequence
