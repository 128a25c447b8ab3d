"""What a viewer's connection receives, counted without decrypting it. Knows nothing of what is sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from aiortc import RTCPeerConnection

from stream.webrtc.aiortc_adapter import sockets_of

Address = tuple[str, int]
_MARKER = 0x80  # of the RTP header: the last packet of a picture


class PacketCounter:
    """Counts the media packets that a viewer's connection receives, reading nothing but their headers.

    For benchmarks: a machine full of decoders says nothing of the sender. STUN and RTCP still work: the
    first packet is passed on, so that aiortc knows of a stream to send reports about.
    ``arrivals`` is when the last packet of each picture came, by RTP timestamp, in monotonic seconds.
    """

    def __init__(self, connection: RTCPeerConnection) -> None:
        self.received = 0
        self.missing = 0
        self.arrivals: dict[int, float] = {}
        self._expected: int | None = None
        for protocol in sockets_of(connection):  # the sender need not choose the one that we would
            protocol.datagram_received = partial(self._count, protocol.datagram_received)

    def _count(self, pass_on: Callable[[bytes, Address], None], data: bytes, address: Address) -> None:
        if not 128 <= data[0] < 192 or 192 <= data[1] < 224:  # not RTP (RFC 7983), or RTCP (RFC 5761)
            pass_on(data, address)
            return
        if not self.received:
            pass_on(data, address)
        sequence = int.from_bytes(data[2:4], "big")
        self.received += 1
        if self._expected is not None:
            self.missing += (
                min((sequence - self._expected) & 0xFFFF, 1000) if sequence != self._expected else 0
            )
        self._expected = (sequence + 1) & 0xFFFF
        if data[1] & _MARKER:
            self.arrivals[int.from_bytes(data[4:8], "big")] = time.monotonic()
