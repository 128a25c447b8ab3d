"""``Assembler``: a stream's RTP packets, in whatever order they come -> whole encoded pictures, in order.

Pure bookkeeping on the event loop's thread. Knows nothing of headers, sockets, decoders or aiortc.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from stream.encode import Codec

# A missing packet is waited for so long, or until so many others have come: it is being sent again.
PATIENCE_S = 0.3
MOST_AHEAD = 512
# The largest picture: over two megabytes.
MOST_PACKETS = 2048
# A number so far back is no late packet: the sender began anew.
RESTART_BEHIND = 1000
ASK_EVERY_S = 0.5

Deliver = Callable[[bytes, int, bool], None]
_Packet = tuple[int, bool, bytes]
"""Timestamp, marker and data."""


class Assembler:
    """Puts packets together by their numbers, and pictures by marker and timestamp.

    It starts with a keyframe. Where a packet is lost for good, nothing is delivered until the next
    keyframe: a picture without the one before it is worse than a short freeze.

    Args:
        codec: ``data`` is Annex B for h264, a frame's bytes for vp8; joined they make the picture.
        deliver: called with a whole picture, its timestamp (90 kHz), and whether it is a keyframe.
    """

    def __init__(self, codec: Codec, deliver: Deliver, clock: Callable[[], float] = time.monotonic) -> None:
        self._is_keyframe = _is_h264_keyframe if codec == "h264" else _is_vp8_keyframe
        self._deliver = deliver
        self._clock = clock
        self._next: int | None = None  # the packet that is due, by a number that never wraps
        self._ahead: dict[int, _Packet] = {}
        self._hole_since_s: float | None = None
        self._picture: list[bytes] = []
        self._timestamp = 0
        self._begun = True  # the beginning of the picture under way has come
        self._needs_keyframe = True
        self._wants_one = False
        self._asked_at: float | None = None

    def ask(self) -> None:
        """A picture could not be decoded: ask for a keyframe, and go on meanwhile. Any thread may call it."""
        self._wants_one = True

    def resync(self) -> None:
        """Pictures were dropped: deliver nothing until the next keyframe, and ask for it."""
        self._needs_keyframe = True

    def add(self, sequence: int, timestamp: int, marker: bool, data: bytes) -> bool:
        """Take a packet; ``sequence`` is its 16-bit number. Returns whether to ask for a keyframe now."""
        number = self._unwrapped(sequence)
        assert self._next is not None  # set by then
        if number >= self._next:
            self._ahead[number] = timestamp, marker, data
            self._advance()
            self._mind_the_hole()
        return self._is_time_to_ask()

    def _unwrapped(self, sequence: int) -> int:
        if self._next is None:
            self._next = sequence
        offset = (sequence - self._next + 0x8000 & 0xFFFF) - 0x8000
        if offset < -RESTART_BEHIND:
            self._start_over()
            self._next = sequence
            return sequence
        return self._next + offset

    def _start_over(self) -> None:
        """Nothing of what came so far can be completed any more."""
        self._ahead.clear()
        self._hole_since_s = None
        self._picture = []
        self._begun = True
        self._needs_keyframe = True

    def _advance(self) -> None:
        """Take what is due, as far as it is there."""
        assert self._next is not None
        while (packet := self._ahead.pop(self._next, None)) is not None:
            self._next += 1
            self._hole_since_s = None
            self._take(*packet)

    def _take(self, timestamp: int, marker: bool, data: bytes) -> None:
        if not data:
            return  # padding, with which a sender probes the network: only its number counts
        if self._picture and timestamp != self._timestamp:  # a sender that sets no marker
            self._complete()
        self._timestamp = timestamp
        self._picture.append(data)
        if marker:
            self._complete()
        elif len(self._picture) > MOST_PACKETS:
            self._abandon()

    def _complete(self) -> None:
        whole, picture = self._begun, b"".join(self._picture)
        self._picture, self._begun = [], True
        if not whole:
            return
        keyframe = self._is_keyframe(picture)
        if keyframe:
            self._needs_keyframe = self._wants_one = False
        if not self._needs_keyframe:
            self._deliver(picture, self._timestamp, keyframe)

    def _mind_the_hole(self) -> None:
        """Give a missing packet up once it is too late for it."""
        if not self._ahead:
            return
        now = self._clock()
        if self._hole_since_s is None:
            self._hole_since_s = now
        if now - self._hole_since_s > PATIENCE_S or len(self._ahead) > MOST_AHEAD:
            self._abandon()
            self._hole_since_s = None
            self._next = min(self._ahead)
            self._advance()

    def _abandon(self) -> None:
        """The picture under way cannot be completed, and those after it need it."""
        self._picture, self._begun = [], False
        self._needs_keyframe = True

    def _is_time_to_ask(self) -> bool:
        now = self._clock()
        if self._asked_at is None:  # whoever starts sends a keyframe unasked
            self._asked_at = now
        if not (self._needs_keyframe or self._wants_one) or now - self._asked_at < ASK_EVERY_S:
            return False
        self._asked_at, self._wants_one = now, False
        return True


def _is_h264_keyframe(picture: bytes) -> bool:
    """Whether the first slice of an access unit is one of an IDR picture (H.264 table 7-1)."""
    start = picture.find(b"\0\0\1")
    while 0 <= start < len(picture) - 3:
        kind = picture[start + 3] & 0x1F
        if kind in range(1, 6):
            return kind == 5
        start = picture.find(b"\0\0\1", start + 3)
    return False


def _is_vp8_keyframe(picture: bytes) -> bool:
    """Whether a frame's header says so and has the start code of one (RFC 6386 section 9.1)."""
    return len(picture) > 9 and not picture[0] & 1 and picture[3:6] == b"\x9d\x01\x2a"
