"""What a viewer's SDP offer asks for, checked before anything is opened for it.

Uses aiortc's public SDP parser; opens nothing and knows nothing of HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aiortc.codecs import CODECS
from aiortc.rtcpeerconnection import find_common_codecs
from aiortc.sdp import SessionDescription

from stream.encode import Codec
from stream.errors import SignallingError
from stream.webrtc.sdp import Trickled, check_count, parse_fragment, without_unreachable_candidates

# Each section opens a transceiver, and until they are bundled a socket.
MAX_MEDIA_SECTIONS = 4


@dataclass(frozen=True, slots=True)
class Offer:
    """A usable offer to receive video.

    ``codecs`` are those of ours it can receive, the preferred first, and may be empty; ``ufrags``
    are its ICE user fragments, ``candidates`` those that can be reached.
    """

    sdp: str
    codecs: tuple[Codec, ...]
    ufrags: frozenset[str]
    candidates: frozenset[Trickled]


def read_offer(sdp: str) -> Offer:
    """Check an offer; unreachable candidates are taken out.

    Raises:
        SignallingError: 400, it is malformed or does not ask for exactly one video; 413, it has too
            many candidates.
    """
    sdp = without_unreachable_candidates(sdp)
    candidates = parse_fragment(sdp).candidates
    check_count(candidates)
    try:
        media = SessionDescription.parse(sdp).media
        fault = _fault(media)
        codecs = _codecs_of(next(m for m in media if m.kind == "video")) if fault is None else ()
        ufrags = frozenset(str(m.ice.usernameFragment) for m in media if m.ice is not None)
    except Exception as error:  # whatever the parser trips over, it is the offer's fault
        raise SignallingError(f"malformed SDP: {str(error)[:200] or type(error).__name__}", 400) from error
    if fault is not None:
        raise SignallingError(fault, 400)
    return Offer(sdp, codecs, ufrags, frozenset(candidates))


def _fault(media: list[Any]) -> str | None:
    kinds = [section.kind for section in media]
    if kinds.count("video") != 1 or len(kinds) > MAX_MEDIA_SECTIONS or set(kinds) - {"video", "audio"}:
        given = ", ".join(kinds[:8]) or "none"
        return f"expected an SDP offer with one video section and perhaps audio, got {len(kinds)} sections: {given}"
    video = media[kinds.index("video")]
    if video.direction not in ("recvonly", "sendrecv"):
        return f"expected a video section to receive, got {video.direction}"
    if any(section.dtls is None or not section.dtls.fingerprints for section in media):
        return "expected a DTLS fingerprint for every section, got none"
    return None


def _codecs_of(video: Any) -> tuple[Codec, ...]:
    common = {codec.mimeType.lower() for codec in find_common_codecs(CODECS["video"], video.rtp.codecs)}
    ours: tuple[Codec, ...] = ("h264", "vp8")
    return tuple(codec for codec in ours if f"video/{codec}" in common)
