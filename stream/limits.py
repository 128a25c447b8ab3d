"""How much one client may ask for, and for how long it may take: token buckets, bodies, slow connections.

Knows nothing of tokens, paths or cameras.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Any

import h11
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_BODY_BYTES = 64 << 10
BODY_TIMEOUT_S = 10.0
HEADERS_TIMEOUT_S = 10.0
MOST_CLIENTS = 4096


class Buckets:
    """A token bucket a client: ``burst`` at once, ``per_s`` in the long run.

    A client that is not in the table has a full bucket. Of more than ``MOST_CLIENTS`` the one that was longest
    silent is forgotten.
    """

    def __init__(self, burst: float, per_s: float, clock: Callable[[], float] = monotonic) -> None:
        self._burst = burst
        self._per_s = per_s
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when that was

    def wait_s(self, client: str) -> float:
        """Until there is a token for that client; 0: there is one."""
        return max(0.0, 1 - self._tokens(client)) / self._per_s

    def take(self, client: str) -> bool:
        """Take one. False: there is none."""
        tokens = self._tokens(client)
        self._left[client] = (tokens - (tokens >= 1), self._clock())
        self._left.move_to_end(client)
        if len(self._left) > MOST_CLIENTS:
            self._left.popitem(last=False)
        return tokens >= 1

    def _tokens(self, client: str) -> float:
        tokens, at = self._left.get(client, (self._burst, self._clock()))
        return min(self._burst, tokens + (self._clock() - at) * self._per_s)


def client_of(scope: Scope) -> str:
    """Who asks: an IPv4 address, or the /64 of an IPv6 one, which a single machine may have all of."""
    host = str((scope.get("client") or ("unknown", 0))[0])
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host[:80]
    if address.version == 6 and address.ipv4_mapped is None:
        return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
    return str(address.ipv4_mapped or address) if address.version == 6 else host


def announces_too_much(scope: Scope) -> bool:
    """Its Content-Length is more than a body may have; whoever sends none is measured by ``bounded``."""
    for name, value in scope.get("headers", ()):
        if name == b"content-length":
            return not value.isdigit() or len(value) > 18 or int(value) > MAX_BODY_BYTES
    return False


def bounded(receive: Receive) -> Receive:
    """``receive`` for a body of at most ``MAX_BODY_BYTES``, that is all there within ``BODY_TIMEOUT_S``.

    Raises:
        HTTPException: 413 or 408, from ``receive``.
    """
    received, complete, deadline = 0, False, monotonic() + BODY_TIMEOUT_S

    async def measured() -> Message:
        nonlocal received, complete
        if complete:  # from here on it only waits for the client to go
            return await receive()
        try:
            async with asyncio.timeout(max(0.0, deadline - monotonic())):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, f"expected the whole body within {BODY_TIMEOUT_S:g} s") from None
        received += len(message.get("body", b""))
        complete = not message.get("more_body", False)
        if received > MAX_BODY_BYTES:
            raise HTTPException(413, TOO_MUCH)
        return message

    return measured


TOO_MUCH = f"expected a body of at most {MAX_BODY_BYTES} bytes, got more"


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP, which by itself waits for ever for the rest of a request's headers (slowloris).

    Or for the rest of a body that nobody reads any more.
    """

    _giving_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._relax()

    def _watch(self) -> None:
        """The clock runs from the first moment until the headers are complete, and again after an early answer."""
        answered = self.cycle is not None and self.cycle.response_complete
        late = self.conn.their_state is h11.IDLE or (self.conn.their_state is h11.SEND_BODY and answered)
        if not late or self.transport.is_closing():
            self._relax()
        elif self._giving_up is None:
            self._giving_up = self.loop.call_later(HEADERS_TIMEOUT_S, self.transport.close)

    def _relax(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None
