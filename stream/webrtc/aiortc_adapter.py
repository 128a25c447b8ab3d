"""The one file that touches aiortc's and aioice's private names. A test lists them all.

aiortc does what is slow to write and quick to run: SDP, ICE, DTLS. What runs for each packet is
ours: ``_Sender`` stands where aiortc's own RTCRtpSender would, numbers the hub's ready-made
payloads, encrypts them and hands them to the socket, all without a task or an await.
``PacketCounter``, which only the benchmark of viewers uses, is here because it reaches in as well.
Knows nothing of cameras, hubs or HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import aiortc
from aiortc import (
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.codecs import is_rtx
from aiortc.exceptions import OperationError
from aiortc.rtcrtpparameters import RTCRtpCodecCapability, RTCRtpSendParameters
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
from aiortc.sdp import SessionDescription, candidate_from_sdp
from aiortc.stats import RTCStatsReport

from stream.encode import CLOCK_HZ, Codec, EncodedUnit
from stream.errors import DeviceUnavailable, SignallingError
from stream.webrtc.ice import IceServer
from stream.webrtc.rtp import ABS_SEND_TIME, MID, PLAYOUT_DELAY, RtpFormat, RtpStream, ntp_time
from stream.webrtc.sdp import Trickled
from stream.webrtc.viewer import Viewer

log = logging.getLogger(__name__)

AIORTC_SERIES = "1.16."
SENDER_SLOT = "_RTCRtpTransceiver__sender"
LOOPBACK = "127.0.0.1"
# A socket that is full is tried again after this; the viewer's queue holds what waits.
FULL_SOCKET_RETRY_S = 0.005
GATHER_TIMEOUT_S = 1.5
REPORTS_REMEMBERED = 16
_MARKER = 0x80  # of the RTP header: the last packet of a picture


class Peer:
    """One viewer's connection.

    ``connected`` is called once, when packets can flow. ``failed`` is called when it is over, with
    the reason; not after ``close``. ``reported`` is called with the fraction of packets that the viewer lost and
    the round trip in seconds (None: it does not tell); ``estimated`` with the bits a second that it thinks
    possible and the octets of payload sent so far.
    """

    def __init__(self, viewer: Viewer, *, loopback_only: bool, ice_servers: Sequence[IceServer] = ()) -> None:
        check_version()
        self.connected: Callable[[], None] = lambda: None
        self.failed: Callable[[str], None] = lambda reason: None
        self.reported: Callable[[float, float | None], None] = lambda lost, round_trip_s: None
        self.estimated: Callable[[int, int], None] = lambda bits_per_s, octets_sent: None
        # An empty list, not None: None asks a public STUN server.
        servers = [RTCIceServer(list(each.urls), each.username, each.credential) for each in ice_servers]
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._loopback_only = loopback_only
        self._transceiver = self._connection.addTransceiver("video", direction="sendonly")
        self._sender = _Sender(viewer, self._transceiver, self)
        self._connection.on("connectionstatechange", self._on_state)

    @property
    def silent_s(self) -> float:
        """Seconds since the viewer was last heard (RTCP or a connectivity check)."""
        return time.monotonic() - self._sender.heard_at

    @property
    def packets_sent(self) -> int:
        """For tests: a viewer in a frozen process cannot say what it was sent."""
        return self._sender.packets_sent

    async def answer(self, offer: str, codec: Codec) -> str:
        """Take a viewer's offer and answer it with ``codec``; ICE starts.

        Raises:
            SignallingError: 400 for an offer that cannot be used, 406 for one without ``codec``.
        """
        self._transceiver.setCodecPreferences(_preferences(codec))
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        except OperationError as error:
            raise SignallingError(f"no common codec: expected {codec} in every video section", 406) from error
        except Exception as error:  # whatever aiortc's parser trips over, it is the offer's fault
            reason = str(error)[:200] or type(error).__name__
            raise SignallingError(f"this offer cannot be used: {reason}", 400) from error
        self._sender.accept_extensions(offer)
        for transceiver in self._connection.getTransceivers():
            _gather_soon(transceiver.receiver.transport.transport._connection, self._loopback_only)
        await self._connection.setLocalDescription()
        return str(self._connection.localDescription.sdp)

    async def add_candidate(self, trickled: Trickled) -> None:
        """Take a trickled candidate.

        Raises:
            SignallingError: 400, it is malformed.
        """
        try:
            candidate = candidate_from_sdp(trickled.candidate)
        except (AssertionError, ValueError, IndexError) as error:
            raise SignallingError(f"malformed ICE candidate {trickled.candidate[:80]!r}", 400) from error
        candidate.sdpMid = trickled.mid
        await self._connection.addIceCandidate(candidate)

    def report(self) -> None:
        """Send an RTCP sender report; call it about once a second."""
        self._sender.report()

    async def close(self) -> None:
        """Say BYE and let go of sockets. Closing twice is harmless."""
        self.failed = lambda reason: None
        await self._connection.close()

    def _on_state(self) -> None:
        if self._connection.connectionState in ("failed", "closed"):
            self.failed(f"connection {self._connection.connectionState}")


class _Sender:
    """Takes the place of a transceiver's RTCRtpSender and offers the surface aiortc uses of it."""

    kind = "video"
    track = None

    def __init__(self, viewer: Viewer, transceiver: RTCRtpTransceiver, peer: Peer) -> None:
        replaced = transceiver.sender
        self.heard_at = time.monotonic()
        self._viewer = viewer
        self._transceiver = transceiver
        self._peer = peer
        self._transport: Any = replaced.transport
        self._ssrc, self._rtx_ssrc = replaced._ssrc, replaced._rtx_ssrc
        self._stream_id, self._track_id = replaced._stream_id, str(uuid.uuid4())
        self._enabled = True
        self._cname = ""
        self._newest: EncodedUnit | None = None  # that is no repeat
        self._stream: RtpStream | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._reported_at: dict[int, float] = {}  # by what receivers repeat of a report
        setattr(transceiver, SENDER_SLOT, self)

    @property
    def packets_sent(self) -> int:
        return self._stream.packets if self._stream else 0

    def accept_extensions(self, offer: str) -> None:
        """Answer with playout-delay where it is offered; aiortc does not know it."""
        for media in SessionDescription.parse(offer).media:
            if media.rtp.muxId == self._transceiver.mid:
                offered = [e for e in media.rtp.headerExtensions if e.uri == PLAYOUT_DELAY and e.id < 15]
                self._transceiver._headerExtensions = [*self._transceiver._headerExtensions, *offered[:1]]

    # What aiortc calls

    @property
    def transport(self) -> Any:
        return self._transport

    def setTransport(self, transport: Any) -> None:  # noqa: N802
        self._transport = transport

    async def send(self, parameters: RTCRtpSendParameters) -> None:
        """ICE and DTLS are up: from now on packets flow."""
        if self._stream is not None:
            return
        self._cname = parameters.rtcp.cname or ""
        self._stream = RtpStream(_format(parameters, self._ssrc, self._rtx_ssrc))
        self._transport._register_rtp_sender(self, parameters)
        self._listen()
        self.heard_at = time.monotonic()
        self._viewer.wake = self._drain
        self._peer.connected()

    async def stop(self) -> None:
        self._viewer.wake = lambda: None
        if self._retry is not None:
            self._retry.cancel()
        if self._stream is not None:
            self._transport._unregister_rtp_sender(self)
            self._send_rtcp(bytes(RtcpByePacket(sources=[self._ssrc])))

    async def getStats(self) -> RTCStatsReport:  # noqa: N802
        return RTCStatsReport()

    async def _handle_rtcp_packet(self, packet: Any) -> None:
        """Every RTCP packet about our stream (reports, NACK, PLI, FIR, REMB)."""
        self.heard_at = time.monotonic()
        if isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK:
            self._retransmit(packet.lost)
        elif isinstance(packet, RtcpPsfbPacket) and packet.fmt in (RTCP_PSFB_PLI, RTCP_PSFB_FIR):
            self._viewer.request_keyframe()
        elif isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_APP:
            with suppress(ValueError):  # not every application message is a REMB
                self._peer.estimated(
                    unpack_remb_fci(packet.fci)[0], self._stream.octets if self._stream else 0
                )
        elif isinstance(packet, RtcpRrPacket):
            for report in packet.reports:
                if report.ssrc == self._ssrc:
                    self._peer.reported(report.fraction_lost / 256, self._round_trip_s(report))

    # What is ours

    def report(self) -> None:
        stream, newest = self._stream, self._newest
        if stream is None or newest is None:
            return
        # The instant that the timestamp stands for: receivers can tell how old a picture is.
        captured = ntp_time(time.time() - (time.monotonic() - newest.captured_at))
        self._reported_at[captured >> 16 & 0xFFFFFFFF] = time.monotonic()
        if len(self._reported_at) > REPORTS_REMEMBERED:
            del self._reported_at[next(iter(self._reported_at))]
        info = RtcpSenderInfo(
            ntp_timestamp=captured,
            rtp_timestamp=newest.timestamp & 0xFFFFFFFF,
            packet_count=stream.packets & 0xFFFFFFFF,
            octet_count=stream.octets & 0xFFFFFFFF,
        )
        source = RtcpSourceInfo(ssrc=self._ssrc, items=[(1, self._cname.encode())])
        sender_report = bytes(RtcpSrPacket(ssrc=self._ssrc, sender_info=info))
        self._send_rtcp(sender_report + bytes(RtcpSdesPacket(chunks=[source])))

    def _round_trip_s(self, report: RtcpReceiverInfo) -> float | None:
        """RFC 3550 section 6.4.1, but by when our report really went: its own time is a picture's."""
        reported_at = self._reported_at.get(report.lsr)
        return None if reported_at is None else max(0.0, time.monotonic() - reported_at - report.dlsr / 65536)

    def _drain(self) -> None:
        """Send what waits for this viewer. A fault ends this viewer, visibly, and no other."""
        try:
            self._send_waiting()
        except ConnectionError as error:
            self._peer.failed(str(error))
        except Exception as error:
            log.exception("sending to a viewer failed; it is closed")
            self._peer.failed(f"{type(error).__name__}: {error}")

    def _send_waiting(self) -> None:
        stream = self._stream
        assert stream is not None  # wake is set after the stream
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        socket, address = self._route()
        protect = self._transport._tx_srtp.protect
        while True:
            if _is_full(socket):
                loop = asyncio.get_running_loop()
                self._retry = loop.call_later(FULL_SOCKET_RETRY_S, self._drain)
                return
            unit = self._viewer.take()
            if unit is None:
                return
            if not unit.repeat:
                self._newest = unit
            for packet in stream.packetised(unit, time.time()):
                socket.sendto(protect(packet), address)

    def _retransmit(self, lost: Sequence[int]) -> None:
        stream = self._stream
        if stream is None:
            return
        now = time.monotonic()
        packets = [stream.retransmission(sequence, now) for sequence in lost]
        if None in packets:  # longer gone than we remember: only a keyframe helps
            self._viewer.request_keyframe()
            return
        socket, address = self._route()
        if _is_full(socket):
            return  # sending more is no help; the viewer asks again
        for packet in filter(None, packets):
            socket.sendto(self._transport._tx_srtp.protect(packet), address)

    def _send_rtcp(self, packet: bytes) -> None:
        try:
            socket, address = self._route()
        except ConnectionError:
            return  # the connection is gone, and with it whoever would have read this
        if not _is_full(socket):
            socket.sendto(self._transport._tx_srtp.protect_rtcp(packet), address)

    def _route(self) -> tuple[Any, tuple[str, int]]:
        """The socket and address that ICE chose."""
        pair = self._transport.transport._connection._nominated.get(1)
        if pair is None or self._transport.state != "connected":
            raise ConnectionError("the connection is closed")
        return pair.protocol.transport, pair.remote_addr

    def _listen(self) -> None:
        """Note each authenticated connectivity check: a viewer of a dead camera sends nothing else."""
        connection = self._transport.transport._connection
        handle = connection.check_incoming

        def check_incoming(message: Any, address: Any, protocol: Any) -> None:
            self.heard_at = time.monotonic()
            handle(message, address, protocol)

        connection.check_incoming = check_incoming


def check_version() -> None:
    """Refuse an aiortc whose inside was not checked against ours."""
    if not aiortc.__version__.startswith(AIORTC_SERIES):
        raise DeviceUnavailable(
            f"aiortc {aiortc.__version__} is installed, but lookout works with {AIORTC_SERIES}x; "
            f"install aiortc {AIORTC_SERIES}0"
        )


def _preferences(codec: Codec) -> list[RTCRtpCodecCapability]:
    """``codec`` in every form we answer with, the preferred first, and retransmission."""
    ours = [c for c in RTCRtpSender.getCapabilities("video").codecs if c.mimeType.lower() == f"video/{codec}"]
    # x264 makes constrained baseline (42e0); a decoder of plain baseline takes it too.
    ours.sort(key=lambda c: not str(c.parameters.get("profile-level-id", "")).startswith("42e0"))
    return [*ours, RTCRtpCodecCapability("video/rtx", CLOCK_HZ)]


def _format(parameters: RTCRtpSendParameters, ssrc: int, rtx_ssrc: int) -> RtpFormat:
    codec = parameters.codecs[0]
    assert codec.payloadType is not None  # negotiated
    rtx = [c for c in parameters.codecs if is_rtx(c) and c.parameters.get("apt") == codec.payloadType]
    ids = {extension.uri: extension.id for extension in parameters.headerExtensions if 0 < extension.id < 15}
    return RtpFormat(
        ssrc=ssrc,
        payload_type=codec.payloadType,
        mid=parameters.muxId,
        rtx_ssrc=rtx_ssrc,
        rtx_payload_type=rtx[0].payloadType if rtx else None,
        mid_id=ids.get(MID) if 0 < len(parameters.muxId) <= 16 else None,
        abs_send_time_id=ids.get(ABS_SEND_TIME),
        playout_delay_id=ids.get(PLAYOUT_DELAY),
    )


def _gather_soon(connection: Any, loopback: bool) -> None:
    """Let ICE offer 127.0.0.1, which aioice leaves out, if ``loopback`` or where there is nothing else.

    And let no STUN or TURN server hold up the answer for long: what has come by then is offered.
    """
    gather = connection.get_component_candidates

    async def get_component_candidates(component: int, addresses: list[str], timeout: float = 5) -> Any:
        if loopback or not addresses:
            addresses = [*addresses, LOOPBACK]
        return await gather(component=component, addresses=addresses, timeout=min(timeout, GATHER_TIMEOUT_S))

    connection.get_component_candidates = get_component_candidates


def _is_full(socket: Any) -> bool:
    """True while the kernel refuses packets; asyncio would queue them without a bound.

    Asked for by name: in Python 3.11 asyncio's UDP transport is no ``DatagramTransport``. A TURN
    connection is not a socket of asyncio's and has no such sign.
    """
    size = getattr(socket, "get_write_buffer_size", None)
    return size is not None and size() > 0


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
        protocol: Any = (
            connection.getTransceivers()[0].receiver.transport.transport._connection._nominated[1].protocol
        )
        self._pass_on = protocol.datagram_received
        protocol.datagram_received = self._count

    def _count(self, data: bytes, address: tuple[str, int]) -> None:
        if not 128 <= data[0] < 192 or 192 <= data[1] < 224:  # not RTP (RFC 7983), or RTCP (RFC 5761)
            self._pass_on(data, address)
            return
        if not self.received:
            self._pass_on(data, address)
        sequence = int.from_bytes(data[2:4], "big")
        self.received += 1
        if self._expected is not None:
            self.missing += (
                min((sequence - self._expected) & 0xFFFF, 1000) if sequence != self._expected else 0
            )
        self._expected = (sequence + 1) & 0xFFFF
        if data[1] & _MARKER:
            self.arrivals[int.from_bytes(data[4:8], "big")] = time.monotonic()
