"""What an SDP offer asks for, checked before anything is opened for it.

Uses aiortc's public SDP parser; opens nothing and knows nothing of HTTP.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from aiortc.codecs import CODECS
from aiortc.rtcpeerconnection import find_common_codecs
from aiortc.sdp import SessionDescription

from stream.encode import Codec
from stream.errors import SignallingError
from stream.webrtc.sdp import Trickled, check_count, parse_fragment, without_unreachable_candidates

# Each section opens a transceiver, and until they are bundled a socket.
MAX_MEDIA_SECTIONS = 4

Purpose = Literal["watch", "publish"]
# What a video section of such an offer may be (RFC 9725 section 4.2 has no others for a publisher).
_DIRECTIONS = {"watch": ("recvonly", "sendrecv"), "publish": ("sendonly", "sendrecv")}
_PROFILE = re.compile(r"(?<=profile-level-id=)[0-9A-Fa-f]{6}")
_BASELINE = "42e01f"
_VERBS = {"watch": "receive", "publish": "send"}


@dataclass(frozen=True, slots=True)
class Offer:
    """A usable offer to receive or to send video.

    ``codecs`` are those of ours that it has, the preferred first, at least one; ``ufrags`` are its
    ICE user fragments, ``candidates`` those that can be reached.
    """

    sdp: str
    codecs: tuple[Codec, ...]
    ufrags: frozenset[str]
    candidates: frozenset[Trickled]


def read_offer(sdp: str, purpose: Purpose) -> Offer:
    """Check an offer; unreachable candidates are taken out.

    Raises:
        SignallingError: 400, it is malformed or has not exactly one video for this purpose; 406, no
            codec of ours is in it; 413, it has too many candidates.
    """
    sdp = without_unreachable_candidates(sdp)
    if purpose == "publish":
        sdp = _with_a_known_profile(sdp)
    candidates = parse_fragment(sdp).candidates
    check_count(candidates)
    try:
        media = SessionDescription.parse(sdp).media
        fault = _fault(media, purpose)
        codecs = _codecs_of(next(m for m in media if m.kind == "video")) if fault is None else ()
        ufrags = frozenset(str(m.ice.usernameFragment) for m in media if m.ice is not None)
    except Exception as error:  # whatever the parser trips over, it is the offer's fault
        raise SignallingError(f"malformed SDP: {str(error)[:200] or type(error).__name__}", 400) from error
    if fault is not None:
        raise SignallingError(fault, 400)
    if not codecs:
        reason = "no common codec: expected H.264 baseline (packetization-mode 1) or VP8"
        raise SignallingError(reason, 406)
    return Offer(sdp, codecs, ufrags, frozenset(candidates))


def _with_a_known_profile(sdp: str) -> str:
    """An offer that has H.264 in other profiles alone, as if it were baseline.

    aiortc negotiates no other; what is published goes to a decoder that takes them all.
    """
    profiles = {found.lower()[:2] for found in _PROFILE.findall(sdp)}
    return sdp if "42" in profiles else _PROFILE.sub(_BASELINE, sdp)


def _fault(media: list[Any], purpose: Purpose) -> str | None:
    kinds = [section.kind for section in media]
    if kinds.count("video") != 1 or len(kinds) > MAX_MEDIA_SECTIONS or set(kinds) - {"video", "audio"}:
        given = ", ".join(kinds[:8]) or "none"
        return f"expected an SDP offer with one video section and perhaps audio, got {len(kinds)} sections: {given}"
    video = media[kinds.index("video")]
    if video.direction not in _DIRECTIONS[purpose]:
        return f"expected a video section to {_VERBS[purpose]}, got {video.direction}"
    if any(section.dtls is None or not section.dtls.fingerprints for section in media):
        return "expected a DTLS fingerprint for every section, got none"
    if any(section.rtp.muxId is None for section in media):
        return "expected a name after a=mid, such as a=mid:0, got none"
    return None


def _codecs_of(video: Any) -> tuple[Codec, ...]:
    common = {codec.mimeType.lower() for codec in find_common_codecs(CODECS["video"], video.rtp.codecs)}
    ours: tuple[Codec, ...] = ("h264", "vp8")
    return tuple(codec for codec in ours if f"video/{codec}" in common)
