"""STUN and TURN servers: what viewers are told of them, and what our own side of a connection uses.

WHEP and WHIP hand them out as Link headers (RFC 9725, RFC 8288). A TURN server with a shared secret
gets credentials that expire (the TURN REST API, draft-uberti-behave-turn-rest: coturn's
``use-auth-secret``). Knows nothing of sessions or aiortc.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from stream.config import IceServerConfig

CREDENTIALS_LAST_S = 12 * 3600
_USER = "lookout"


@dataclass(frozen=True, slots=True)
class IceServer:
    """One server as both sides use it; STUN has no credentials."""

    urls: tuple[str, ...]
    username: str | None = None
    credential: str | None = None

    def links(self) -> list[str]:
        """Its Link headers, one a URL."""
        rest = '; rel="ice-server"'
        if self.username is not None and self.credential is not None:
            user, password = (_escaped(value) for value in (self.username, self.credential))
            rest += f'; username="{user}"; credential="{password}"; credential-type="password"'
        return [f"<{url}>{rest}" for url in self.urls]


def ice_servers(configs: Iterable[IceServerConfig], unix_s: float) -> list[IceServer]:
    """The servers with credentials that are good from ``unix_s`` on."""
    return [_ready(config, unix_s) for config in configs]


def _ready(config: IceServerConfig, unix_s: float) -> IceServer:
    if config.secret is None:
        credential = None if config.credential is None else config.credential.get_secret_value()
        return IceServer(config.urls, config.username, credential)
    username = f"{int(unix_s) + CREDENTIALS_LAST_S}:{config.username or _USER}"
    digest = hmac.new(config.secret.get_secret_value().encode(), username.encode(), hashlib.sha1).digest()
    return IceServer(config.urls, username, base64.b64encode(digest).decode())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
