"""The little of SDP that is ours to read and edit, as text. Knows nothing of aiortc or HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


def without_unreachable_candidates(sdp: str) -> str:
    """An offer without ``.local`` candidates and without ``a=end-of-candidates``.

    Browsers hide their addresses behind mDNS names that nobody here can resolve. With them, or
    told that no others come, ICE would wait or give up; without them it learns the browser's
    address from its first connectivity check (a peer-reflexive candidate).
    """
    return "".join(line for line in _lines(sdp) if not _is_unreachable(line))


@dataclass(frozen=True, slots=True)
class Trickled:
    """One candidate of an SDP fragment. ``candidate`` begins after ``a=candidate:``."""

    mid: str
    candidate: str


@dataclass(frozen=True, slots=True)
class Fragment:
    """An ``application/trickle-ice-sdpfrag`` body (RFC 8840)."""

    ufrag: str | None
    candidates: tuple[Trickled, ...]


def parse_fragment(text: str) -> Fragment:
    """Read a trickle fragment; lines of no interest are passed over, unreachable candidates dropped."""
    ufrag: str | None = None
    mid = "0"
    candidates: list[Trickled] = []
    for line in map(str.strip, _lines(text)):
        if line.startswith("a=ice-ufrag:"):
            ufrag = line.removeprefix("a=ice-ufrag:")
        elif line.startswith("a=mid:"):
            mid = line.removeprefix("a=mid:")
        elif line.startswith("a=candidate:") and not _is_unreachable(line):
            candidates.append(Trickled(mid, line.removeprefix("a=candidate:")))
    return Fragment(ufrag, tuple(candidates))


def _lines(sdp: str) -> Iterator[str]:
    for line in sdp.replace("\r\n", "\n").split("\n"):
        if line:
            yield line + "\r\n"


def _is_unreachable(line: str) -> bool:
    if line.startswith("a=end-of-candidates"):
        return True
    parts = line.split()
    return line.startswith("a=candidate:") and len(parts) > 4 and parts[4].lower().endswith(".local")
