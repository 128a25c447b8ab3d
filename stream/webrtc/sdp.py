"""The little of SDP that is ours to read, check and edit, as text. Knows nothing of aiortc or HTTP."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from stream.errors import SignallingError

# Each candidate makes the server send checks to an address that the viewer names, and what pairing
# them costs grows with the square of their number.
MAX_CANDIDATES = 32
CANDIDATE_TYPES = ("host", "srflx", "prflx", "relay")


def without_unreachable_candidates(sdp: str) -> str:
    """An offer without ``.local`` candidates and without ``a=end-of-candidates``.

    Browsers hide their addresses behind mDNS names that nobody here can resolve. With them, or
    told that no others come, ICE would wait or give up; without them it learns the browser's
    address from its first connectivity check (a peer-reflexive candidate).
    """
    return "".join(line for line in _lines(sdp) if not _is_unreachable(line))


@dataclass(frozen=True, slots=True)
class Trickled:
    """One candidate of an SDP fragment, checked. ``candidate`` begins after ``a=candidate:``."""

    mid: str
    candidate: str


@dataclass(frozen=True, slots=True)
class Fragment:
    """An ``application/trickle-ice-sdpfrag`` body (RFC 8840)."""

    ufrag: str | None
    candidates: tuple[Trickled, ...]


def parse_fragment(text: str) -> Fragment:
    """Read a trickle fragment, or an offer's candidates; other lines are passed over, unreachable ones dropped.

    Raises:
        SignallingError: 400, a candidate is malformed.
    """
    ufrag: str | None = None
    mid = "0"
    candidates: list[Trickled] = []
    for line in map(str.strip, _lines(text)):
        if line.startswith("a=ice-ufrag:"):
            ufrag = line.removeprefix("a=ice-ufrag:")
        elif line.startswith("a=mid:"):
            mid = line.removeprefix("a=mid:")
        elif line.startswith("a=candidate:") and not _is_unreachable(line):
            candidates.append(Trickled(mid, _checked(line.removeprefix("a=candidate:"))))
    return Fragment(ufrag, tuple(candidates))


def check_count(candidates: Collection[Trickled]) -> None:
    """Refuse more candidates than one session may have.

    Raises:
        SignallingError: 413.
    """
    if len(candidates) > MAX_CANDIDATES:
        reason = f"expected at most {MAX_CANDIDATES} ICE candidates in a session, got {len(candidates)}"
        raise SignallingError(reason, 413)


def _checked(candidate: str) -> str:
    if not _is_well_formed(candidate):
        raise SignallingError(
            f"malformed ICE candidate {candidate[:80]!r}: expected an IP address, a port from 1 to 65535 "
            f"and a type of {', '.join(CANDIDATE_TYPES)}",
            400,
        )
    return candidate


def _is_well_formed(candidate: str) -> bool:
    """RFC 8839 section 5.1: foundation, component, transport, priority, address, port, ``typ``, type."""
    parts = candidate.split()
    if len(parts) < 8 or parts[6] != "typ" or parts[7] not in CANDIDATE_TYPES:
        return False
    try:
        ip_address(parts[4])  # a name would have to be resolved, and so would a zone
        return "%" not in parts[4] and 1 <= int(parts[5]) <= 65535
    except ValueError:
        return False


def _lines(sdp: str) -> Iterator[str]:
    for line in sdp.splitlines():  # as aiortc does: a line must not be one here and two there
        if line:
            yield line + "\r\n"


def _is_unreachable(line: str) -> bool:
    if line.startswith("a=end-of-candidates"):
        return True
    parts = line.split()
    return line.startswith("a=candidate:") and len(parts) > 4 and parts[4].lower().endswith(".local")
