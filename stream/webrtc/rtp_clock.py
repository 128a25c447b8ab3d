"""Stream time as RTP timestamps. Knows nothing of packets."""

from __future__ import annotations

import secrets
from time import monotonic

from stream.encode import CLOCK_HZ

# A jump of the stream's clock beyond this is a new epoch, not a gap in the pictures.
LONGEST_GAP_S = 30.0


class RtpClock:
    """Stream seconds -> RTP's 90 kHz, always growing, from a random start (RFC 3550 section 5.1)."""

    def __init__(self) -> None:
        self._offset = secrets.randbits(31)
        self._last: int | None = None
        self._last_at = 0.0

    def stamp(self, time_s: float, repeat: bool) -> int:
        """The timestamp of a picture; of one that is sent again, moved on by the time since."""
        now = monotonic()
        stamp = round(time_s * CLOCK_HZ) + self._offset
        if self._last is not None:
            elapsed = round((now - self._last_at) * CLOCK_HZ)
            step = stamp - self._last
            if repeat:
                stamp = self._last + max(1, elapsed)
            elif abs(step - elapsed) > LONGEST_GAP_S * CLOCK_HZ:  # the stream's clock was set anew
                self._offset += max(1, elapsed) - step
                stamp = self._last + max(1, elapsed)
            else:
                stamp = self._last + max(1, step)  # a repeat may have run ahead a little
        self._last, self._last_at = stamp, now
        return stamp
