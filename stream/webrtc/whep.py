"""WHEP (draft-ietf-wish-whep): a POST joins a camera, a PATCH trickles candidates, a DELETE leaves.

A PUT, which is ours, asks for another size of picture.
``WhepService`` owns every session it opens: each ends on DELETE, on failure, when it does not
connect in time, when its viewer falls silent, and when the service closes. Knows nothing of
pictures, packets or aiortc; what it refuses it raises as ``SignallingError``.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import secrets
from collections.abc import Callable, Sequence
from time import monotonic
from typing import cast, get_args

from fastapi import APIRouter, Request
from fastapi.responses import Response

from stream.errors import SignallingError
from stream.webrtc.aiortc_adapter import Peer
from stream.webrtc.ice import IceServer
from stream.webrtc.ladder import Ladder, Watchable
from stream.webrtc.offer import Offer, read_offer
from stream.webrtc.rendition import Boxes, Rendition
from stream.webrtc.sdp import Fragment, check_count, parse_fragment
from stream.webrtc.viewer import Viewer

log = logging.getLogger(__name__)

SDP = "application/sdp"
SDP_FRAGMENT = "application/trickle-ice-sdpfrag"
MAX_BODY_BYTES = 64 << 10
RETRY_AFTER_S = 5
CONNECT_TIMEOUT_S = 10.0
# A viewer that is there is heard every few seconds (RTCP once a second, ICE checks).
HOLD_AFTER_S = 5.0
SILENCE_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0

IceServersNow = Callable[[], Sequence[IceServer]]
CameraFor = Callable[[str], Watchable]


class WhepService:
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
        self._camera_for = camera_for
        self._max_viewers = max_viewers
        self._loopback_only = loopback_only
        self._ice_servers = ice_servers
        self._sessions: dict[str, _Session] = {}
        self._closed = False
        self.router = self._routes()

    async def join(
        self, camera_id: str, sdp: str, boxes: Boxes = "drawn", height: int | None = None
    ) -> tuple[str, str]:
        """Open a session for an SDP offer: (its id, the SDP answer).

        ``height`` is how many pixels of it the viewer can show; None: all.

        Raises:
            SignallingError: 400, 404, 406, 413 or 503.
        """
        if self._closed or len(self._sessions) >= self._max_viewers:
            reason = "the server is closing" if self._closed else f"all {self._max_viewers} places are taken"
            raise SignallingError(f"{reason}; try again later", 503, RETRY_AFTER_S)
        offer = read_offer(sdp)
        if not offer.codecs:
            reason = "no common codec: expected H.264 baseline (packetization-mode 1) or VP8"
            raise SignallingError(reason, 406)
        if boxes == "data" and "h264" not in offer.codecs:
            raise SignallingError(
                "boxes=data needs H.264 in the offer, which carries them; leave it out", 406
            )
        camera = self._camera_for(camera_id)
        codec = "h264" if boxes == "data" else offer.codecs[0]
        viewer = Viewer()
        peer = Peer(viewer, loopback_only=self._loopback_only, ice_servers=self._ice_servers())
        ladder = Ladder(camera, Rendition(codec, boxes, height), viewer)
        session = _Session(camera_id, ladder, offer, peer)
        self._sessions[session.id] = session
        try:
            answer = await session.peer.answer(offer.sdp, codec)
        except BaseException:
            try:
                await session.peer.close()
            finally:
                del self._sessions[session.id]
            raise
        session.task = asyncio.create_task(self._tend(session), name=f"viewer-{session.id[:8]}")
        return session.id, answer

    async def leave(self, camera_id: str, session_id: str) -> None:
        """Close a session.

        Raises:
            SignallingError: 404, there is none.
        """
        session = self._session(camera_id, session_id)
        session.end("left")
        if session.task is not None:
            await asyncio.wait((session.task,))  # a caller that goes away must not cut it short

    async def close(self) -> None:
        """Close every session, within about a second, and open no more."""
        self._closed = True
        sessions = list(self._sessions.values())
        for session in sessions:
            session.end("the server is closing")
        tasks = [session.task for session in sessions if session.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)
            for task in late:
                task.cancel()

    async def _tend(self, session: _Session) -> None:
        """One session's life, whatever ends it."""
        try:
            reason = await session.live()
            log.info("camera %s: viewer %s: %s", session.camera_id, session.id[:8], reason)
        finally:
            session.ladder.leave()
            try:
                await session.peer.close()
            finally:  # only now: ``close`` waits for the sessions that are listed
                del self._sessions[session.id]

    def _session(self, camera_id: str, session_id: str) -> _Session:
        session = self._sessions.get(session_id)
        if session is None or session.camera_id != camera_id:
            raise SignallingError("no such session: it has ended, or it never was", 404)
        return session

    def _routes(self) -> APIRouter:
        router = APIRouter(tags=["whep"])

        @router.post("/whep/{camera_id}", status_code=201, response_class=Response)
        async def join(
            camera_id: str, request: Request, boxes: str = "drawn", height: str | None = None
        ) -> Response:
            """Watch a camera: send an SDP offer, receive the SDP answer.

            ``boxes=data`` leaves the picture clean and sends the boxes along as H.264 SEI messages.
            ``height`` is how many pixels high the picture will be shown: a smaller one may be sent.
            """
            sdp = await _body(request, SDP)
            session_id, answer = await self.join(camera_id, sdp, _boxes(boxes), _height(height))
            headers = {
                "Location": f"{request.url.path}/{session_id}",
                "ETag": self._sessions[session_id].etag,
                "Accept-Patch": SDP_FRAGMENT,
            }
            return self._with_links(Response(answer, 201, headers, media_type=SDP))

        @router.patch("/whep/{camera_id}/{session_id}", status_code=204, response_class=Response)
        async def trickle(camera_id: str, session_id: str, request: Request) -> Response:
            """Add ICE candidates to a session."""
            fragment = parse_fragment(await _body(request, SDP_FRAGMENT))
            session = self._session(camera_id, session_id)
            if request.headers.get("if-match", "*") not in ("*", session.etag):
                raise SignallingError("this session has another ETag: its ICE session is a newer one", 412)
            await session.trickle(fragment)
            return Response(status_code=204)

        @router.put("/whep/{camera_id}/{session_id}", status_code=204, response_class=Response)
        async def ask(camera_id: str, session_id: str, height: str | None = None) -> Response:
            """Say anew how many pixels high the picture is shown; it goes on without a break."""
            self._session(camera_id, session_id).ask(_height(height))
            return Response(status_code=204)

        @router.delete("/whep/{camera_id}/{session_id}", response_class=Response)
        async def leave(camera_id: str, session_id: str) -> Response:
            """Stop watching."""
            await self.leave(camera_id, session_id)
            return Response(status_code=200)

        @router.options("/whep/{camera_id}", status_code=204, response_class=Response)
        async def options(camera_id: str) -> Response:
            """What may be posted here."""
            headers = {"Allow": "OPTIONS, POST", "Accept-Post": SDP, "Cache-Control": "no-store"}
            return self._with_links(Response(status_code=204, headers=headers))

        return router

    def _with_links(self, response: Response) -> Response:
        """The response, telling of the ICE servers."""
        for server in self._ice_servers():
            for link in server.links():
                response.headers.append("Link", link)
        return response


class _Session:
    """One viewer: its connection, and what it is shown."""

    def __init__(self, camera_id: str, ladder: Ladder, offer: Offer, peer: Peer) -> None:
        self.id = secrets.token_urlsafe(16)
        self.etag = f'"{secrets.token_urlsafe(8)}"'
        self.camera_id = camera_id
        self.ladder, self.peer = ladder, peer
        self.task: asyncio.Task[None] | None = None
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._opened_at = monotonic()
        self._connected = False
        self._ufrags = offer.ufrags
        self._candidates = offer.candidates
        self.ladder.viewer.ended = self.end
        self.peer.connected = self._join
        self.peer.failed = self.end
        self.peer.reported = self._reported
        self.peer.estimated = ladder.estimate

    def end(self, reason: str) -> None:
        if not self._over.done():
            self._over.set_result(reason)

    async def live(self) -> str:
        """Run until the session is over; returns why. Reports and looks after the viewer on the way."""
        while not self._over.done():
            # RFC 3550 section 6.2: reports are spread out so that senders do not fall into step.
            await asyncio.wait((self._over,), timeout=random.uniform(0.5, 1.5))
            self._look_after()
        return self._over.result()

    async def trickle(self, fragment: Fragment) -> None:
        """Take candidates.

        Raises:
            SignallingError: 422 for an ICE restart, 413 for too many, 400 for a malformed candidate.
        """
        if fragment.ufrag is not None and fragment.ufrag not in self._ufrags:
            raise SignallingError("an ICE restart is not supported: DELETE this session and POST anew", 422)
        candidates = self._candidates.union(fragment.candidates)
        check_count(candidates)
        new, self._candidates = candidates - self._candidates, candidates
        for candidate in new:
            await self.peer.add_candidate(candidate)

    def ask(self, height: int | None) -> None:
        """Another size from now on; what has no such size gives the next larger."""
        self._try(lambda: self.ladder.ask(height))

    def _join(self) -> None:
        """The connection stands: the viewer gets its first picture at once."""
        self._connected = True
        self._try(self.ladder.join)

    def _look_after(self) -> None:
        if not self._connected:
            if monotonic() - self._opened_at > CONNECT_TIMEOUT_S:
                self.end(f"no connection within {CONNECT_TIMEOUT_S:g} s")
            return
        silent_s = self.peer.silent_s
        if silent_s > SILENCE_TIMEOUT_S:
            self.end(f"silent for {SILENCE_TIMEOUT_S:g} s")
        self.ladder.viewer.hold(silent_s > HOLD_AFTER_S)
        self._try(self.ladder.look_after)
        self.peer.report()

    def _reported(self, lost: float, round_trip_s: float | None) -> None:
        self.ladder.report(lost, round_trip_s)
        self._try(self.ladder.look_after)

    def _try(self, move: Callable[[], None]) -> None:
        """Between hubs of a camera that may have been taken away meanwhile."""
        try:
            move()
        except RuntimeError as error:
            self.end(str(error))


def _boxes(given: str) -> Boxes:
    """Raises: SignallingError: 400, it is neither ``drawn`` nor ``data``."""
    for known in get_args(Boxes):
        if given == known:
            return cast(Boxes, known)
    raise SignallingError(f"boxes={given[:40]}: expected {' or '.join(get_args(Boxes))}", 400)


def _height(given: str | None) -> int | None:
    """Raises: SignallingError: 400, it is no number of pixels."""
    if given is None:
        return None
    if re.fullmatch(r"[1-9][0-9]{0,4}", given):
        return int(given)
    raise SignallingError(f"height={given[:40]}: expected a number of pixels, such as 720", 400)


async def _body(request: Request, expected: str) -> str:
    """The request's text.

    Raises:
        SignallingError: 415 for another type, 413 for too much, 400 for what is not text.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != expected:
        raise SignallingError(f"expected Content-Type {expected}, got {given[:80] or 'none'}", 415)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise SignallingError(f"expected at most {MAX_BODY_BYTES} bytes of {expected}, got more", 413)
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise SignallingError(f"expected {expected} as UTF-8 text, got bytes that are not", 400) from error
