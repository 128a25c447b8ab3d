"""WHEP (draft-ietf-wish-whep): a POST joins a camera, a PATCH trickles candidates, a DELETE leaves.

A PUT, which is ours, asks for another size of picture; a WebSocket, which is ours too, brings the boxes.
Knows nothing of pictures, packets or aiortc; what it refuses it raises as ``SignallingError``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast, get_args

from fastapi import Request, WebSocket
from fastapi.responses import JSONResponse, Response

from stream.errors import SignallingError
from stream.webrtc.aiortc_adapter import ViewerPeer
from stream.webrtc.boxes import BoxFeed
from stream.webrtc.ladder import Ladder, Watchable
from stream.webrtc.offer import Offer, read_offer
from stream.webrtc.rendition import SOURCE, Boxes, Rendition
from stream.webrtc.sessions import SDP, IceServersNow, Session, SessionService, body
from stream.webrtc.viewer import Viewer

BOXES_RELATION = "urn:lookout:boxes"
RETRY_AFTER_S = 5
HOLD_AFTER_S = 5.0

CameraFor = Callable[[str], Watchable]


class WhepService(SessionService["_Watching"]):
    """All viewers of all cameras.

    Args:
        camera_for: by id; raises ``SignallingError`` 404 for an unknown one.
        max_viewers: more are refused with 503.
        loopback_only: also offer 127.0.0.1 as an ICE candidate, for viewers on this machine.
        ice_servers: those to use for a session that is opened now, by both of its sides.
    """

    def __init__(
        self,
        camera_for: CameraFor,
        max_viewers: int,
        loopback_only: bool,
        ice_servers: IceServersNow = tuple,
    ) -> None:
        super().__init__("whep", "viewer", ice_servers)
        self._camera_for = camera_for
        self._max_viewers = max_viewers
        self._loopback_only = loopback_only
        self._add_requests()

    async def join(
        self,
        camera_id: str,
        sdp: str,
        boxes: Boxes = "drawn",
        height: int | None = None,
        source: bool = False,
    ) -> tuple[str, str]:
        """Open a session for an SDP offer: (its id, the SDP answer).

        ``height`` is how many pixels of it the viewer can show; None: all. ``source``: as the camera sends it,
        with the boxes as data and whatever the height.

        Raises:
            SignallingError: 400, 404, 406, 413 or 503.
        """
        if self._closed or len(self._sessions) >= self._max_viewers:
            reason = "the server is closing" if self._closed else f"all {self._max_viewers} places are taken"
            raise SignallingError(f"{reason}; try again later", 503, RETRY_AFTER_S)
        offer = read_offer(sdp, "watch")
        if source and "h264" not in offer.codecs:
            raise SignallingError("rendition=source needs H.264 in the offer; leave it out", 406)
        camera = self._camera_for(camera_id)
        codec = offer.codecs[0]
        viewer = Viewer()
        ladder = Ladder(camera, SOURCE if source else Rendition(codec, boxes, height), viewer)
        peer = ViewerPeer(
            viewer,
            loopback_only=self._loopback_only,
            ice_servers=self._ice_servers(),
            profile=ladder.profile,
        )
        session = _Watching(camera_id, offer, peer, ladder)
        if ladder.rendition.boxes == "data":
            session.feed = BoxFeed()
            viewer.taken = session.feed.announce
        return session.id, await self.open(session, codec)

    def _add_requests(self) -> None:
        @self.router.post("/whep/{camera_id}", status_code=201, response_class=Response)
        async def join(
            camera_id: str,
            request: Request,
            boxes: str = "drawn",
            height: str | None = None,
            rendition: str | None = None,
        ) -> Response:
            """Watch a camera: send an SDP offer, receive the SDP answer.

            ``boxes=data`` leaves the picture clean and sends the boxes along: in H.264 as SEI messages, and with
            any codec on the WebSocket that a Link header of the answer names (rel="urn:lookout:boxes").
            ``height`` is how many pixels high the picture will be shown: a smaller one may be sent.
            ``rendition=source`` sends the camera's own H.264 as it is, with the boxes as ``boxes=data`` does.
            """
            sdp = await body(request, SDP)
            source = _is_source(rendition)
            session_id, answer = await self.join(camera_id, sdp, _boxes(boxes), _height(height), source)
            response = self.created(request, session_id, answer)
            if self._sessions[session_id].feed is not None:
                link = f'<{request.url.path}/{session_id}/boxes>; rel="{BOXES_RELATION}"'
                response.headers.append("Link", link)
            return response

        @self.router.put("/whep/{camera_id}/{session_id}", status_code=204, response_class=Response)
        async def ask(camera_id: str, session_id: str, height: str | None = None) -> Response:
            """Say anew how many pixels high the picture is shown; it goes on without a break."""
            self._session(camera_id, session_id).ask(_height(height))
            return Response(status_code=204)

        @self.router.websocket("/whep/{camera_id}/{session_id}/boxes")
        async def announce(websocket: WebSocket, camera_id: str, session_id: str) -> None:
            try:
                feed = self._session(camera_id, session_id).feed
                if feed is None:
                    raise SignallingError(
                        "this session's boxes are in its pictures: POST to ?boxes=data", 409
                    )
            except SignallingError as error:
                return await websocket.send_denial_response(JSONResponse({"error": str(error)}, error.status))
            return await feed.serve(websocket)


class _Watching(Session[ViewerPeer]):
    """One viewer: its connection, and what it is shown."""

    def __init__(self, camera_id: str, offer: Offer, peer: ViewerPeer, ladder: Ladder) -> None:
        super().__init__(camera_id, offer, peer)
        self.ladder = ladder
        self.feed: BoxFeed | None = None  # where boxes go as data
        self.ladder.viewer.ended = self.end
        self.peer.reported = self._reported
        self.peer.estimated = ladder.estimate

    def ask(self, height: int | None) -> None:
        """Another size from now on; what has no such size gives the next larger."""
        self._try(lambda: self.ladder.ask(height))

    def _joined(self) -> None:
        """The viewer gets its first picture at once."""
        self._try(self.ladder.join)

    def _tended(self, silent_s: float) -> None:
        self.ladder.viewer.hold(silent_s > HOLD_AFTER_S)
        self._try(self.ladder.look_after)
        self.peer.report()

    def _left(self, reason: str) -> None:
        self.ladder.leave()
        if self.feed is not None:
            self.feed.close("the session is over")

    def _reported(self, lost: int, highest: int, round_trip_s: float | None) -> None:
        self.ladder.report(lost, highest, round_trip_s)
        self._try(self.ladder.look_after)

    def _try(self, move: Callable[[], None]) -> None:
        """Between hubs of a camera that may have been taken away meanwhile."""
        try:
            move()
        except (RuntimeError, SignallingError) as error:
            self.end(str(error))


def _boxes(given: str) -> Boxes:
    """Raises: SignallingError: 400, it is neither ``drawn`` nor ``data``."""
    for known in get_args(Boxes):
        if given == known:
            return cast(Boxes, known)
    raise SignallingError(f"boxes={given[:40]}: expected {' or '.join(get_args(Boxes))}", 400)


def _is_source(given: str | None) -> bool:
    """Raises: SignallingError: 400, it is another word than ``source``."""
    if given not in (None, "source"):
        raise SignallingError(f"rendition={given[:40]}: expected source, or to be left out", 400)
    return given is not None


def _height(given: str | None) -> int | None:
    """Raises: SignallingError: 400, it is no number of pixels."""
    if given is None:
        return None
    if re.fullmatch(r"[1-9][0-9]{0,4}", given):
        return int(given)
    raise SignallingError(f"height={given[:40]}: expected a number of pixels, such as 720", 400)
