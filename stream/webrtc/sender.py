"""``RtpSender``: sends one viewer its units, in bursts, and deals with what the viewer reports.

Runs on the event loop without a task or an await. Knows nothing of ICE, encryption or sockets: those are
behind ``Wire``. RTCP is written and read with aiortc's public classes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Protocol

from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    RtcpByePacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
    unpack_remb_fci,
)

from stream.encode import EncodedUnit
from stream.webrtc.rtp import BURST_PACKETS, RtpStream, ntp_time
from stream.webrtc.viewer import Viewer

log = logging.getLogger(__name__)

# A socket that is full is tried again after this; the viewer's queue holds what waits.
FULL_SOCKET_RETRY_S = 0.005
# Between two bursts of one picture: 16 packets each take it to 75 Mbit/s.
BURST_GAP_S = 0.002
REPORTS_REMEMBERED = 16


Reported = Callable[[int, int, float | None], None]


class Wire(Protocol):
    """Where packets go, in the clear. Each may raise ConnectionError once the connection is closed."""

    def is_full(self) -> bool: ...

    def send_packets(self, packets: Iterable[bytes]) -> int:
        """Send RTP packets; how many there were."""
        ...

    def send_rtcp(self, packet: bytes) -> None: ...


class RtpSender:
    """Takes units from ``viewer`` whenever it wakes us, until ``stop``.

    ``failed`` is called when sending is over, with the reason. ``reported`` is called with the packets that the
    viewer lost in all, the highest sequence number that it got (32 bits) and the round trip in seconds (None: it
    does not tell); ``estimated`` with the bits a second that it thinks possible and the octets of payload sent.
    """

    def __init__(self, viewer: Viewer, stream: RtpStream, wire: Wire, cname: str) -> None:
        self.failed: Callable[[str], None] = lambda reason: None
        self.reported: Reported = lambda lost, highest, round_trip_s: None
        self.estimated: Callable[[int, int], None] = lambda bits_per_s, octets_sent: None
        self.stream = stream
        self._viewer = viewer
        self._wire = wire
        self._cname = cname
        self._newest: EncodedUnit | None = None  # that is no repeat
        self._sending: Iterator[bytes] | None = None  # a unit that is partly sent
        self._waiting: asyncio.TimerHandle | None = None
        self._reported_at: dict[int, float] = {}  # by what receivers repeat of a report
        viewer.wake = self._drain

    def stop(self) -> None:
        """Say BYE; nothing is sent any more."""
        self._viewer.wake = lambda: None
        self.failed = lambda reason: None
        self.reported = lambda lost, highest, round_trip_s: None
        self.estimated = lambda bits_per_s, octets_sent: None
        self.stream.forget()
        if self._waiting is not None:
            self._waiting.cancel()
        self._send_rtcp(bytes(RtcpByePacket(sources=[self.stream.format.ssrc])))

    def report(self) -> None:
        """Send an RTCP sender report; call it about once a second."""
        newest, ssrc = self._newest, self.stream.format.ssrc
        if newest is None:
            return
        # The instant that the timestamp stands for: receivers can tell how old a picture is.
        captured = ntp_time(_unix_s(newest.captured_at))
        self._reported_at[captured >> 16 & 0xFFFFFFFF] = time.monotonic()
        if len(self._reported_at) > REPORTS_REMEMBERED:
            del self._reported_at[next(iter(self._reported_at))]
        info = RtcpSenderInfo(
            ntp_timestamp=captured,
            rtp_timestamp=newest.timestamp & 0xFFFFFFFF,
            packet_count=self.stream.packets & 0xFFFFFFFF,
            octet_count=self.stream.octets & 0xFFFFFFFF,
        )
        source = RtcpSourceInfo(ssrc=ssrc, items=[(1, self._cname.encode())])
        sender_report = bytes(RtcpSrPacket(ssrc=ssrc, sender_info=info))
        self._send_rtcp(sender_report + bytes(RtcpSdesPacket(chunks=[source])))

    def hear(self, packet: Any) -> None:
        """Take an RTCP packet about our stream (reports, NACK, PLI, FIR, REMB)."""
        if isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK:
            self._retransmit(packet.lost)
        elif isinstance(packet, RtcpPsfbPacket) and packet.fmt in (RTCP_PSFB_PLI, RTCP_PSFB_FIR):
            self._viewer.request_keyframe()
        elif isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_APP:
            with suppress(ValueError):  # not every application message is a REMB
                self.estimated(unpack_remb_fci(packet.fci)[0], self.stream.octets)
        elif isinstance(packet, RtcpRrPacket):
            for report in packet.reports:
                if report.ssrc == self.stream.format.ssrc:
                    self.reported(report.packets_lost, report.highest_sequence, self._round_trip_s(report))

    def _round_trip_s(self, report: RtcpReceiverInfo) -> float | None:
        """RFC 3550 section 6.4.1, but by when our report really went: its own time is a picture's."""
        reported_at = self._reported_at.get(report.lsr)
        return None if reported_at is None else max(0.0, time.monotonic() - reported_at - report.dlsr / 65536)

    def _drain(self) -> None:
        """Send what waits for this viewer. A fault ends this viewer, visibly, and no other."""
        if self._waiting is not None:
            return  # it is sent then
        try:
            pause_s = self._send_waiting()
        except ConnectionError as error:
            self.failed(str(error))
        except Exception as error:
            log.exception("sending to a viewer failed; it is closed")
            self.failed(f"{type(error).__name__}: {error}")
        else:
            if pause_s:
                self._waiting = asyncio.get_running_loop().call_later(pause_s, self._go_on)

    def _go_on(self) -> None:
        self._waiting = None
        self._drain()

    def _send_waiting(self) -> float:
        """Send bursts until nothing waits (0), or until it is time for a pause: its seconds."""
        while not self._wire.is_full():
            if self._sending is None:
                unit = self._viewer.take()
                if unit is None:
                    return 0
                if not unit.repeat:
                    self._newest = unit
                self._sending = self.stream.packetised(unit, time.time, _unix_s(unit.captured_at))
            if self._wire.send_packets(islice(self._sending, BURST_PACKETS)) == BURST_PACKETS:
                return BURST_GAP_S
            self._sending = None
        return FULL_SOCKET_RETRY_S

    def _retransmit(self, lost: Sequence[int]) -> None:
        now = time.monotonic()
        packets = [self.stream.retransmission(sequence, now) for sequence in lost]
        if None in packets:  # longer gone than we remember: only a keyframe helps
            self._viewer.request_keyframe()
        elif not self._wire.is_full():  # sending more would be no help; the viewer asks again
            self._wire.send_packets(packet for packet in packets if packet)

    def _send_rtcp(self, packet: bytes) -> None:
        with suppress(ConnectionError):  # then whoever would have read this is gone
            if not self._wire.is_full():
                self._wire.send_rtcp(packet)


def _unix_s(monotonic_s: float) -> float:
    return time.time() - (time.monotonic() - monotonic_s)
