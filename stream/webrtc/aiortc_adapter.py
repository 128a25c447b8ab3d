"""The one file that touches aiortc's and aioice's private names. A test lists them all.

aiortc does what is slow to write and quick to run: SDP, ICE, DTLS. What runs for each packet is
ours: ``_Sender`` stands where aiortc's own RTCRtpSender would, and gives packets of the ``RtpSender``
(``sender.py``), encrypted, straight to the socket that ICE chose.
The other way round, aiortc receives a publisher's packets and ``PublisherPeer`` hands them on.
Knows nothing of cameras, hubs or HTTP.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import aiortc
from aiortc import (
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.exceptions import OperationError
from aiortc.rtcrtpparameters import RTCRtpSendParameters
from aiortc.sdp import SessionDescription, candidate_from_sdp
from aiortc.stats import RTCStatsReport

from stream.encode import Codec
from stream.errors import DeviceUnavailable, SignallingError
from stream.h264 import Profile
from stream.webrtc.formats import decoding, preferences, rtp_format
from stream.webrtc.ice import IceServer
from stream.webrtc.rtp import (
    ABS_CAPTURE_TIME,
    PLAYOUT_DELAY,
    RtpStream,
)
from stream.webrtc.sdp import Trickled
from stream.webrtc.sender import Reported, RtpSender
from stream.webrtc.udp import Batches
from stream.webrtc.viewer import Viewer

AIORTC_SERIES = "1.16."
SENDER_SLOT = "_RTCRtpTransceiver__sender"
JITTER_SLOT = "_RTCRtpReceiver__jitter_buffer"
CERTIFICATES_SLOT = "_RTCPeerConnection__certificates"
# RFC 8827 section 6.5 and what it allows besides: forward secrecy, for certificates of both kinds.
DTLS_CIPHERS = b":".join(
    b"ECDHE-%s-%s" % (kind, cipher)
    for cipher in (b"AES128-GCM-SHA256", b"CHACHA20-POLY1305", b"AES128-SHA", b"AES256-SHA")
    for kind in (b"ECDSA", b"RSA")
)
LOOPBACK = "127.0.0.1"
GATHER_TIMEOUT_S = 1.5

Take = Callable[[int, int, bool, bytes], bool]
"""A packet's sequence number, timestamp, marker and data -> whether a keyframe is needed."""


class Peer:
    """One connection, with one video that goes one way.

    ``connected`` is called once, when packets can flow. ``failed`` is called when it is over, with
    the reason; not after ``close``.
    """

    def __init__(
        self, direction: Literal["sendonly", "recvonly"], loopback_only: bool, servers: Sequence[IceServer]
    ) -> None:
        check_version()
        self.connected: Callable[[], None] = lambda: None
        self.failed: Callable[[str], None] = lambda reason: None
        self.heard_at = time.monotonic()
        # An empty list, not None: None asks a public STUN server.
        known = [RTCIceServer(list(each.urls), each.username, each.credential) for each in servers]
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=known))
        accept_rsa(self._connection)
        self._loopback_only = loopback_only
        self._transceiver = self._connection.addTransceiver("video", direction=direction)
        self._connection.on("connectionstatechange", self._on_state)

    @property
    def silent_s(self) -> float:
        """Seconds since the other side was last heard (media, RTCP or a connectivity check)."""
        return time.monotonic() - self.heard_at

    async def answer(self, offer: str, codec: Codec) -> str:
        """Take an offer and answer it with ``codec``; ICE starts.

        Raises:
            SignallingError: 400 for an offer that cannot be used, 406 for one without ``codec``.
        """
        self._transceiver.setCodecPreferences(preferences(codec))
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        except OperationError as error:
            raise SignallingError(f"no common codec: expected {codec} in every video section", 406) from error
        except Exception as error:  # whatever aiortc's parser trips over, it is the offer's fault
            reason = str(error)[:200] or type(error).__name__
            raise SignallingError(f"this offer cannot be used: {reason}", 400) from error
        for transceiver in self._connection.getTransceivers():
            if transceiver is not self._transceiver:
                transceiver.direction = "inactive"  # sound would be decoded and never fetched
            _gather_soon(transceiver.receiver.transport.transport._connection, self._loopback_only)
        self._accept(offer)
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

    async def close(self) -> None:
        """Say BYE and let go of sockets. Closing twice is harmless."""
        self.failed = lambda reason: None
        await self._connection.close()

    def _accept(self, offer: str) -> None:
        """The offer has been taken; the answer to it has not been made yet."""

    @property
    def _ice(self) -> Any:
        return self._transceiver.receiver.transport.transport._connection

    def _on_state(self) -> None:
        if self._transceiver.receiver.transport.state == "failed":
            self.failed("the DTLS handshake failed: its certificate or ciphers are none of ours")
        elif self._connection.connectionState in ("failed", "closed"):
            self.failed(f"connection {self._connection.connectionState}")

    def connect(self) -> None:
        """Packets can flow. From now on each authenticated connectivity check is noted: a viewer of a
        dead camera sends nothing else."""
        connection = self._ice
        handle = connection.check_incoming

        def check_incoming(message: Any, address: Any, protocol: Any) -> None:
            self.heard_at = time.monotonic()
            handle(message, address, protocol)

        connection.check_incoming = check_incoming
        self.heard_at = time.monotonic()
        self.connected()


class ViewerPeer(Peer):
    """A viewer's connection: what the hub puts in its queue is sent.

    It is answered with H.264, where that is what it gets, that decodes ``profile``.
    ``reported`` and ``estimated`` are those of ``RtpSender``.
    """

    def __init__(
        self,
        viewer: Viewer,
        *,
        loopback_only: bool,
        ice_servers: Sequence[IceServer] = (),
        profile: Profile = Profile.BASELINE,
    ) -> None:
        super().__init__("sendonly", loopback_only, ice_servers)
        self._profile = profile
        self.reported: Reported = lambda lost, highest, round_trip_s: None
        self.estimated: Callable[[int, int], None] = lambda bits_per_s, octets_sent: None
        self._sender = _Sender(viewer, self._transceiver, self)

    @property
    def packets_sent(self) -> int:
        """For tests: a viewer in a frozen process cannot say what it was sent."""
        return self._sender.rtp.stream.packets if self._sender.rtp else 0

    def report(self) -> None:
        """Send an RTCP sender report; call it about once a second."""
        if self._sender.rtp is not None:
            self._sender.rtp.report()

    def _accept(self, offer: str) -> None:
        for media in SessionDescription.parse(offer).media:
            if media.rtp.muxId == self._transceiver.mid:
                if self._profile > Profile.BASELINE:
                    self._accept_h264(media)
                self._sender.accept_extensions(media)

    def _accept_h264(self, media: Any) -> None:
        """Answer with what decodes our profile.

        Raises:
            SignallingError: 406, nothing in the offer does.
        """
        self._transceiver._codecs = decoding(media, self._profile)
        if not self._transceiver._codecs:
            name = self._profile.name.lower()
            raise SignallingError(
                f"this camera's stream is H.264 of profile {name}, and nothing in the offer decodes it; "
                "leave out rendition=source",
                406,
            )


class PublisherPeer(Peer):
    """A publisher's connection: its packets go to ``take``, in the order in which they come.

    aiortc's receiver asks for lost packets again, reports, and estimates the bandwidth. Putting the
    packets together is ours (``stream/webrtc/assemble.py``): its jitter buffer holds each picture
    back until the next one begins, and its decoder's queue has no bound.
    """

    def __init__(self, take: Take, *, loopback_only: bool, ice_servers: Sequence[IceServer] = ()) -> None:
        super().__init__("recvonly", loopback_only, ice_servers)
        self._take = take
        receiver = self._transceiver.receiver
        setattr(receiver, JITTER_SLOT, self)
        self._handle_rtcp = receiver._handle_rtcp_packet
        receiver._handle_rtcp_packet = self._rtcp  # type: ignore[method-assign]

    def add(self, packet: Any) -> tuple[bool, None]:
        """What aiortc calls for each packet: (whether it is to ask for a keyframe, never a picture)."""
        self.heard_at = time.monotonic()
        return self._take(packet.sequence_number, packet.timestamp, bool(packet.marker), packet._data), None

    def _accept(self, offer: str) -> None:
        # FFmpeg answers no checks of consent (RFC 7675), which would end its session after 30 s. What comes
        # from a publisher is authenticated and shows the same, and silence ends the session sooner.
        self._ice.query_consent = _for_ever

    async def _rtcp(self, packet: Any) -> None:
        self.heard_at = time.monotonic()
        await self._handle_rtcp(packet)

    def _on_state(self) -> None:
        if self._connection.connectionState == "connected":
            self.connect()
        super()._on_state()


class _Sender:
    """Takes the place of a transceiver's RTCRtpSender and offers the surface aiortc uses of it.

    It is the ``Wire`` of the ``RtpSender`` that does the work.
    """

    kind = "video"
    track = None

    def __init__(self, viewer: Viewer, transceiver: RTCRtpTransceiver, peer: ViewerPeer) -> None:
        replaced = transceiver.sender
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

    def accept_extensions(self, media: Any) -> None:
        """Answer with playout-delay and abs-capture-time where they are offered; aiortc does not know them."""
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
        stream = RtpStream(rtp_format(parameters, self._ssrc, self._rtx_ssrc))
        self.rtp = RtpSender(self._viewer, stream, self, parameters.rtcp.cname or "")
        self.rtp.failed = lambda reason: self._peer.failed(reason)
        self.rtp.reported = lambda lost, highest, round_trip_s: self._peer.reported(
            lost, highest, round_trip_s
        )
        self.rtp.estimated = lambda bits_per_s, octets: self._peer.estimated(bits_per_s, octets)
        self._transport._register_rtp_sender(self, parameters)
        self._peer.connect()

    async def stop(self) -> None:
        if self.rtp is not None:
            self._transport._unregister_rtp_sender(self)
            self.rtp.stop()

    async def getStats(self) -> RTCStatsReport:  # noqa: N802
        return RTCStatsReport()

    async def _handle_rtcp_packet(self, packet: Any) -> None:
        """Every RTCP packet about our stream."""
        self._peer.heard_at = time.monotonic()
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


def check_version() -> None:
    """Refuse an aiortc whose inside was not checked against ours."""
    if not aiortc.__version__.startswith(AIORTC_SERIES):
        raise DeviceUnavailable(
            f"aiortc {aiortc.__version__} is installed, but lookout works with {AIORTC_SERIES}x; "
            f"install aiortc {AIORTC_SERIES}0"
        )


def accept_rsa(connection: RTCPeerConnection) -> None:
    """Let DTLS use peers' RSA certificates (GStreamer's webrtcbin): aiortc asks for ECDSA's alone.

    Our own stays ECDSA. To be called before the connection is negotiated.
    """
    for certificate in getattr(connection, CERTIFICATES_SLOT):
        create = certificate._create_ssl_context

        def create_ssl_context(*given: Any, create: Callable[..., Any] = create, **named: Any) -> Any:
            context = create(*given, **named)
            context.set_cipher_list(DTLS_CIPHERS)
            return context

        certificate._create_ssl_context = create_ssl_context


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


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def sockets_of(connection: RTCPeerConnection) -> list[Any]:
    """What receives the datagrams of a connection, one an address of its own, for benchmarks to look into."""
    return list(connection.getTransceivers()[0].receiver.transport.transport._connection._protocols)
