"""The one file that touches aiortc's and aioice's private names. A test lists them all.

aiortc does what is slow to write and quick to run: SDP, ICE, DTLS. What runs for each packet is
ours: ``_Sender`` stands where aiortc's own RTCRtpSender would, and gives packets of the ``RtpSender``
(``sender.py``), encrypted, straight to the socket that ICE chose.
``PacketCounter``, which only the benchmark of viewers uses, is here because it reaches in as well.
Knows nothing of cameras, hubs or HTTP.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
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
from aiortc.sdp import SessionDescription, candidate_from_sdp
from aiortc.stats import RTCStatsReport

from stream.encode import CLOCK_HZ, Codec
from stream.errors import DeviceUnavailable, SignallingError
from stream.webrtc.ice import IceServer
from stream.webrtc.rtp import (
    ABS_CAPTURE_TIME,
    ABS_SEND_TIME,
    MID,
    PLAYOUT_DELAY,
    RtpFormat,
    RtpStream,
)
from stream.webrtc.sdp import Trickled
from stream.webrtc.sender import RtpSender
from stream.webrtc.udp import Batches
from stream.webrtc.viewer import Viewer

log = logging.getLogger(__name__)

AIORTC_SERIES = "1.16."
SENDER_SLOT = "_RTCRtpTransceiver__sender"
LOOPBACK = "127.0.0.1"
GATHER_TIMEOUT_S = 1.5
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
        return self._sender.rtp.stream.packets if self._sender.rtp else 0

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
        if self._sender.rtp is not None:
            self._sender.rtp.report()

    async def close(self) -> None:
        """Say BYE and let go of sockets. Closing twice is harmless."""
        self.failed = lambda reason: None
        await self._connection.close()

    def _on_state(self) -> None:
        if self._connection.connectionState in ("failed", "closed"):
            self.failed(f"connection {self._connection.connectionState}")


class _Sender:
    """Takes the place of a transceiver's RTCRtpSender and offers the surface aiortc uses of it.

    It is the ``Wire`` of the ``RtpSender`` that does the work.
    """

    kind = "video"
    track = None

    def __init__(self, viewer: Viewer, transceiver: RTCRtpTransceiver, peer: Peer) -> None:
        replaced = transceiver.sender
        self.heard_at = time.monotonic()
        self.rtp: RtpSender | None = None
        self._viewer = viewer
        self._transceiver = transceiver
        self._peer = peer
        self._transport: Any = replaced.transport
        self._ssrc, self._rtx_ssrc = replaced._ssrc, replaced._rtx_ssrc
        self._stream_id, self._track_id = replaced._stream_id, str(uuid.uuid4())
        self._enabled = True
        self._batches = Batches()
        setattr(transceiver, SENDER_SLOT, self)

    def accept_extensions(self, offer: str) -> None:
        """Answer with playout-delay and abs-capture-time where they are offered; aiortc does not know them."""
        for media in SessionDescription.parse(offer).media:
            if media.rtp.muxId == self._transceiver.mid:
                offered = {e.uri: e for e in media.rtp.headerExtensions if e.id < 15}
                ours = [offered[uri] for uri in (PLAYOUT_DELAY, ABS_CAPTURE_TIME) if uri in offered]
                self._transceiver._headerExtensions = [*self._transceiver._headerExtensions, *ours]

    # What aiortc calls

    @property
    def transport(self) -> Any:
        return self._transport

    def setTransport(self, transport: Any) -> None:  # noqa: N802
        self._transport = transport

    async def send(self, parameters: RTCRtpSendParameters) -> None:
        """ICE and DTLS are up: from now on packets flow."""
        if self.rtp is not None:
            return
        stream = RtpStream(_format(parameters, self._ssrc, self._rtx_ssrc))
        self.rtp = RtpSender(self._viewer, stream, self, parameters.rtcp.cname or "")
        self.rtp.failed = lambda reason: self._peer.failed(reason)
        self.rtp.reported = lambda lost, round_trip_s: self._peer.reported(lost, round_trip_s)
        self.rtp.estimated = lambda bits_per_s, octets: self._peer.estimated(bits_per_s, octets)
        self._transport._register_rtp_sender(self, parameters)
        self._listen()
        self.heard_at = time.monotonic()
        self._peer.connected()

    async def stop(self) -> None:
        if self.rtp is not None:
            self._transport._unregister_rtp_sender(self)
            self.rtp.stop()

    async def getStats(self) -> RTCStatsReport:  # noqa: N802
        return RTCStatsReport()

    async def _handle_rtcp_packet(self, packet: Any) -> None:
        """Every RTCP packet about our stream."""
        self.heard_at = time.monotonic()
        if self.rtp is not None:
            self.rtp.hear(packet)

    # What the RtpSender calls

    def is_full(self) -> bool:
        """True while the kernel refuses packets; asyncio would queue them without a bound.

        Asked for by name: in Python 3.11 asyncio's UDP transport is no ``DatagramTransport``. A TURN
        connection is not a socket of asyncio's and has no such sign.
        """
        size = getattr(self._route()[0], "get_write_buffer_size", None)
        return size is not None and size() > 0

    def send_packets(self, packets: Iterable[bytes]) -> int:
        socket, address = self._route()
        protect = self._transport._tx_srtp.protect
        protected = [protect(packet) for packet in packets]
        self._batches.send(socket, protected, address)
        return len(protected)

    def send_rtcp(self, packet: bytes) -> None:
        socket, address = self._route()
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
        abs_capture_time_id=ids.get(ABS_CAPTURE_TIME),
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
