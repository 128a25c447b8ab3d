"""What WHEP and WHIP share: the life of a session and the HTTP requests that open, steer and end it.

``SessionService`` owns every session it opens: each ends on DELETE, on failure, when it does not
connect in time, when its peer falls silent, and when the service closes. Knows nothing of
pictures, packets or aiortc; what it refuses it raises as ``SignallingError``.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Generic, Literal, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import Response

from stream.encode import Codec
from stream.errors import SignallingError
from stream.webrtc.aiortc_adapter import Peer
from stream.webrtc.ice import IceServer
from stream.webrtc.offer import Offer
from stream.webrtc.sdp import Fragment, check_count, parse_fragment

log = logging.getLogger(__name__)

SDP = "application/sdp"
SDP_FRAGMENT = "application/trickle-ice-sdpfrag"
CONNECT_TIMEOUT_S = 10.0
# A peer that is there is heard every few seconds (RTCP once a second, ICE checks).
SILENCE_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0

IceServersNow = Callable[[], Sequence[IceServer]]
PeerT = TypeVar("PeerT", bound=Peer)


class Session(Generic[PeerT]):
    """One connection between a camera and whoever watches it or publishes to it.

    A subclass says in ``_joined``, ``_tended`` and ``_left`` what it is for.
    """

    def __init__(self, camera_id: str, offer: Offer, peer: PeerT) -> None:
        self.id = secrets.token_urlsafe(16)
        self.etag = f'"{secrets.token_urlsafe(8)}"'
        self.camera_id = camera_id
        self.offer = offer
        self.peer = peer
        self.task: asyncio.Task[None] | None = None
        self.closed = False  # it holds nothing any more but its connection, which may take a while to end
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._opened_at = monotonic()
        self._connected = False
        self._candidates = offer.candidates
        self.peer.connected = self._connect
        self.peer.failed = self.end

    def end(self, reason: str) -> None:
        if not self._over.done():
            self._over.set_result(reason)

    async def live(self) -> str:
        """Run until the session is over; returns why. Looks after the peer on the way."""
        while not self._over.done():
            # RFC 3550 section 6.2: reports are spread out so that senders do not fall into step.
            await asyncio.wait((self._over,), timeout=random.uniform(0.5, 1.5))
            self._look_after()
        return self._over.result()

    async def close(self, reason: str) -> None:
        """Let go of whatever it holds; to be called once, when it is over."""
        self._left(reason)
        self.closed = True
        await self.peer.close()

    async def trickle(self, fragment: Fragment) -> None:
        """Take candidates.

        Raises:
            SignallingError: 422 for an ICE restart, 413 for too many, 400 for a malformed candidate.
        """
        if fragment.ufrag is not None and fragment.ufrag not in self.offer.ufrags:
            raise SignallingError("an ICE restart is not supported: DELETE this session and POST anew", 422)
        candidates = self._candidates.union(fragment.candidates)
        check_count(candidates)
        new, self._candidates = candidates - self._candidates, candidates
        for candidate in new:
            await self.peer.add_candidate(candidate)

    def _joined(self) -> None:
        """The connection stands."""

    def _tended(self, silent_s: float) -> None:
        """About once a second from then on; ``silent_s`` is since the peer was last heard."""

    def _left(self, reason: str) -> None:
        """It is over, connected or not."""

    def _connect(self) -> None:
        self._connected = True
        self._joined()

    def _look_after(self) -> None:
        if not self._connected:
            if monotonic() - self._opened_at > CONNECT_TIMEOUT_S:
                self.end(f"no connection within {CONNECT_TIMEOUT_S:g} s")
            return
        silent_s = self.peer.silent_s
        if silent_s > SILENCE_TIMEOUT_S:
            self.end(f"silent for {SILENCE_TIMEOUT_S:g} s")
        self._tended(silent_s)


SessionT = TypeVar("SessionT", bound="Session[Any]")


class SessionService(Generic[SessionT]):
    """All sessions of one protocol, and the requests about a session that is open.

    Args:
        protocol: the first part of every path.
        role: what to call the other side in the log.
        ice_servers: those to use for a session that is opened now, by both of its sides.
    """

    def __init__(self, protocol: Literal["whep", "whip"], role: str, ice_servers: IceServersNow) -> None:
        self._role = role
        self._ice_servers = ice_servers
        self._sessions: dict[str, SessionT] = {}
        self._closed = False
        self.router = APIRouter(tags=[protocol])
        self._add_routes(protocol)

    async def open(self, session: SessionT, codec: Codec) -> str:
        """List a session, answer its offer with ``codec`` and tend it from now on; returns the answer.

        Raises:
            SignallingError: 400 or 406, the offer cannot be used.
        """
        self._sessions[session.id] = session
        try:
            answer: str = await session.peer.answer(session.offer.sdp, codec)
        except BaseException:
            try:
                await session.close("the offer cannot be used")
            finally:
                del self._sessions[session.id]
            raise
        session.task = asyncio.create_task(self._tend(session), name=f"{self._role}-{session.id[:8]}")
        return answer

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

    def created(self, request: Request, session_id: str, answer: str) -> Response:
        """The response to a POST that opened a session."""
        headers = {
            "Location": f"{request.url.path}/{session_id}",
            "ETag": self._sessions[session_id].etag,
            "Accept-Patch": SDP_FRAGMENT,
        }
        return self._with_links(Response(answer, 201, headers, media_type=SDP))

    async def _tend(self, session: SessionT) -> None:
        """One session's life, whatever ends it."""
        reason = "ended"
        try:
            reason = await session.live()
            log.info("camera %s: %s %s: %s", session.camera_id, self._role, session.id[:8], reason)
        finally:
            try:
                await session.close(reason)
            finally:  # only now: ``close`` waits for the sessions that are listed
                del self._sessions[session.id]

    def _session(self, camera_id: str, session_id: str) -> SessionT:
        session = self._sessions.get(session_id)
        if session is None or session.camera_id != camera_id:
            raise SignallingError("no such session: it has ended, or it never was", 404)
        return session

    def _add_routes(self, protocol: str) -> None:
        @self.router.patch(
            f"/{protocol}/{{camera_id}}/{{session_id}}", status_code=204, response_class=Response
        )
        async def trickle(camera_id: str, session_id: str, request: Request) -> Response:
            """Add ICE candidates to a session."""
            fragment = parse_fragment(await body(request, SDP_FRAGMENT))
            session = self._session(camera_id, session_id)
            if request.headers.get("if-match", "*") not in ("*", session.etag):
                raise SignallingError("this session has another ETag: its ICE session is a newer one", 412)
            await session.trickle(fragment)
            return Response(status_code=204)

        @self.router.delete(f"/{protocol}/{{camera_id}}/{{session_id}}", response_class=Response)
        async def leave(camera_id: str, session_id: str) -> Response:
            """End a session."""
            await self.leave(camera_id, session_id)
            return Response(status_code=200)

        @self.router.options(f"/{protocol}/{{camera_id}}", status_code=204, response_class=Response)
        async def options(camera_id: str) -> Response:
            """What may be posted here."""
            headers = {"Allow": "OPTIONS, POST", "Accept-Post": SDP, "Cache-Control": "no-store"}
            return self._with_links(Response(status_code=204, headers=headers))

    def _with_links(self, response: Response) -> Response:
        """The response, telling of the ICE servers."""
        for server in self._ice_servers():
            for link in server.links():
                response.headers.append("Link", link)
        return response


async def body(request: Request, expected: str) -> str:
    """The request's text; how much it may be is bounded for all requests (``stream/limits.py``).

    Raises:
        SignallingError: 415 for another type, 400 for what is not text.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != expected:
        raise SignallingError(f"expected Content-Type {expected}, got {given[:80] or 'none'}", 415)
    try:
        return (await request.body()).decode()
    except UnicodeDecodeError as error:
        raise SignallingError(f"expected {expected} as UTF-8 text, got bytes that are not", 400) from error
