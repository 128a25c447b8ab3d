"""WHIP (RFC 9725): a POST publishes to a camera, a PATCH trickles candidates, a DELETE ends it.

A camera has one publisher at a time, and only one whose source is ``whip`` has any. Knows nothing of
decoding or aiortc; what it refuses it raises as ``SignallingError``.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request
from fastapi.responses import Response

from stream.errors import SignallingError
from stream.sources.inlet import Inlet, Publication
from stream.webrtc.aiortc_adapter import PublisherPeer
from stream.webrtc.assemble import Assembler
from stream.webrtc.offer import Offer, read_offer
from stream.webrtc.sessions import SDP, IceServersNow, Session, SessionService, body

RETRY_AFTER_S = 5

InletFor = Callable[[str], Inlet]


class WhipService(SessionService["_Publishing"]):
    """All publishers, at most one a camera.

    Args:
        inlet_for: camera id -> where its pictures go; raises ``SignallingError`` 404 for an unknown
            camera, 409 for one that is not published to.
        loopback_only: also offer 127.0.0.1 as an ICE candidate, for publishers on this machine.
        ice_servers: those to use for a session that is opened now, by both of its sides.
    """

    def __init__(self, inlet_for: InletFor, loopback_only: bool, ice_servers: IceServersNow = tuple) -> None:
        super().__init__("whip", "publisher", ice_servers)
        self._inlet_for = inlet_for
        self._loopback_only = loopback_only
        self._add_publish()

    async def publish(self, camera_id: str, sdp: str) -> tuple[str, str]:
        """Open a session for an SDP offer: (its id, the SDP answer).

        Raises:
            SignallingError: 400, 404, 406, 409, 413 or 503.
        """
        if self._closed:
            raise SignallingError("the server is closing; try again later", 503, RETRY_AFTER_S)
        inlet = self._inlet_for(camera_id)
        if any(session.camera_id == camera_id and not session.closed for session in self._sessions.values()):
            reason = f"somebody else publishes to camera {camera_id!r}; try again once they have stopped"
            raise SignallingError(reason, 409, RETRY_AFTER_S)
        offer = read_offer(sdp, "publish")
        codec = offer.codecs[0]
        publication = inlet.prepare(codec)
        assembler = Assembler(codec, publication.put)
        publication.resync, publication.ask = assembler.resync, assembler.ask
        peer = PublisherPeer(
            assembler.add, loopback_only=self._loopback_only, ice_servers=self._ice_servers()
        )
        session = _Publishing(camera_id, offer, peer, inlet, publication)
        return session.id, await self.open(session, codec)

    def _add_publish(self) -> None:
        @self.router.post("/whip/{camera_id}", status_code=201, response_class=Response)
        async def publish(camera_id: str, request: Request) -> Response:
            """Publish to a camera: send an SDP offer, receive the SDP answer."""
            session_id, answer = await self.publish(camera_id, await body(request, SDP))
            return self.created(request, session_id, answer)


class _Publishing(Session[PublisherPeer]):
    """One publisher: its connection, and what it sends."""

    def __init__(
        self, camera_id: str, offer: Offer, peer: PublisherPeer, inlet: Inlet, publication: Publication
    ) -> None:
        super().__init__(camera_id, offer, peer)
        self._inlet = inlet
        self._publication = publication

    def _joined(self) -> None:
        self._inlet.connect(self._publication)

    def _tended(self, silent_s: float) -> None:
        if self._inlet.closed:
            self.end("the camera was removed or changed")

    def _left(self, reason: str) -> None:
        if reason in ("left", "connection closed"):
            why = "the publisher left"
        elif self._connected:
            why = f"the publisher is gone ({reason})"
        else:
            why = f"a publisher could not connect: {reason}"
        self._publication.end(why)
        self._inlet.connect(self._publication)  # in case it never was: the camera says why
