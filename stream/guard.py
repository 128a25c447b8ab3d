"""``Guard``: what every request meets first. Who may come, how often, how much, and what browsers are told.

Every request but those of ``PROBES`` needs the token where one is set (Bearer, or the cookie that ``/?token=...``
leaves), and so does every WebSocket. Knows nothing of cameras.
"""

from __future__ import annotations

import hmac
import logging
import math
from collections import Counter
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stream.config import is_loopback
from stream.errors import redact
from stream.limits import TOO_MUCH, Buckets, announces_too_much, bounded, client_of

log = logging.getLogger(__name__)

COOKIE = "lookout_token"
PROBES = ("/healthz", "/readyz")

# Generous: a wall of 64 cameras that opens at once needs about three requests each.
REQUESTS_AT_ONCE, REQUESTS_PER_S = 300, 50
MOST_UNDER_WAY = 64  # who takes no answers in must not take every connection
# A weak token must not be found by trying: after ten wrong ones, one in five seconds.
ATTEMPTS_AT_ONCE, ATTEMPTS_PER_S = 10, 0.2

# Nothing inline, nothing from elsewhere, in no frame of another site.
_OWN = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGE_POLICY = f"{_OWN}; img-src 'self' blob: data:; media-src 'self' blob: mediastream:"
# The viewer of the API's description brings a script of its own inside its page.
DOCS_POLICY = (
    f"{_OWN}; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
)
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"


class Guard:
    """Lets requests and WebSockets through that may come; the others it answers itself."""

    def __init__(self, app: ASGIApp, token: bytes | None, allow_origins: Collection[str]) -> None:
        self._app = app
        self._token = token
        self._allow_origins = frozenset(origin.lower() for origin in allow_origins)
        self._under_way: Counter[str] = Counter()
        self._requests = Buckets(REQUESTS_AT_ONCE, REQUESTS_PER_S)
        self._attempts = Buckets(ATTEMPTS_AT_ONCE, ATTEMPTS_PER_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        client = client_of(scope)
        answer = self._answer(HTTPConnection(scope), client) or self._app
        if scope["type"] != "http":
            return await answer(scope, receive, send)
        self._under_way[client] += 1
        try:
            await answer(scope, bounded(receive), _with_policy(scope["path"], send))
        finally:
            self._under_way[client] -= 1
            if not self._under_way[client]:
                del self._under_way[client]

    def _answer(self, asked: HTTPConnection, client: str) -> Response | None:
        """What is said instead of going on, or None."""
        if announces_too_much(asked.scope):
            return JSONResponse({"error": TOO_MUCH}, 413, {"Connection": "close"})
        if asked.url.path in PROBES:  # they cost nothing, and a flood of others must not have us restarted
            return None
        if self._under_way[client] >= MOST_UNDER_WAY or not self._requests.take(client):
            return _later("too many requests from this address", self._requests.wait_s(client))
        if asked.scope["type"] == "websocket" and not self._is_welcome(asked.headers):
            host, origin = (redact(asked.headers.get(name, ""))[:80] for name in ("host", "origin"))
            reason = (
                f"expected a page of this site ({host}), or one of server.allow_origins, got one of {origin}; "
                "a proxy in front must leave Host as it is"
            )
            return JSONResponse({"error": reason}, 403)
        if self._token is None:
            # Another site's page, whose name was made to resolve to this machine, is not a local client.
            if is_loopback(asked.url.hostname or ""):
                return None
            return JSONResponse({"error": "open this by the address it listens on, such as 127.0.0.1"}, 403)
        return self._admit(asked, client)

    def _admit(self, asked: HTTPConnection, client: str) -> Response | None:
        """None for whoever has the token."""
        enters = asked.query_params.get("token") if asked.url.path == "/" else None
        scheme, _, bearer = asked.headers.get("authorization", "").partition(" ")
        offered = enters or (bearer if scheme.lower() == "bearer" else asked.cookies.get(COOKIE, ""))
        # Not even looked at, or a right guess would be told from the wrong ones.
        if offered and (wait_s := self._attempts.wait_s(client)):
            return _later("too many wrong tokens from this address", wait_s)
        if self._is_token(offered):
            return None if enters is None else _entered(offered, asked.url.scheme == "https")
        if offered:
            self._attempts.take(client)
            log.warning("a wrong token from %s", client)
        reason = "a token is required: send 'Authorization: Bearer TOKEN', or open /?token=TOKEN once"
        return JSONResponse({"error": reason}, 401, {"WWW-Authenticate": "Bearer"})

    def _is_token(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(given.encode(), self._token)

    def _is_welcome(self, headers: Headers) -> bool:
        """Whether a WebSocket may come from there: a browser sends cookies with those of any page (RFC 6455, 10.2)."""
        origin = headers.get("origin")
        if origin is None or origin.lower() in self._allow_origins:  # None: no browser
            return True
        return origin.lower().partition("://")[2] == headers.get("host", "").lower()


def _entered(token: str, is_secure: bool) -> Response:
    """Leaves the token with the browser, and takes it out of its address line."""
    response = RedirectResponse("/", status_code=303)
    response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=is_secure)
    return response


def _later(reason: str, wait_s: float) -> Response:
    seconds = max(1, math.ceil(wait_s))
    return JSONResponse({"error": f"{reason}; try again in {seconds} s"}, 429, {"Retry-After": str(seconds)})


def _with_policy(path: str, send: Send) -> Send:
    """``send`` that tells browsers what the answer may do."""
    policy = DATA_POLICY
    if path == "/" or path.startswith("/web/"):
        policy = PAGE_POLICY
    elif path.startswith(("/docs", "/static-offline-docs/")):
        policy = DOCS_POLICY

    async def telling(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Content-Security-Policy"] = policy
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "no-referrer"  # the token may stand in the address
        await send(message)

    return telling
