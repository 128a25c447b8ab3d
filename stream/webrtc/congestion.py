"""Whether a viewer's network carries what it is sent: when to send less, and when to try more again.

Receiver reports (RFC 3550) tell of loss and of round trips, which grow with the queues on the way. REMB
(draft-alvestrand-rmcat-remb) tells how much gets through; alone it is no alarm, as it lags behind a picture
that begins to move. Knows nothing of packets, renditions or hubs.
"""

from __future__ import annotations

from math import inf

# More loss than this is congestion. Google's control (draft-ietf-rmcat-gcc section 6) says 0.1, but a lost packet
# is sent again, and where loss is the radio's, sending less does not lessen it.
TOO_MUCH_LOSS = 0.15
# A round trip that takes so much longer than the shortest waits in somebody's queue.
TOO_LONG_QUEUE_S = 0.25
# Receivers report as often as they lose something, each time of a few packets; this is long enough to tell.
WINDOW_S = 1.0
CONGESTED_FOR_S = 0.9  # from the end of the first bad window: two in a row
# For so long after a step down, reports still tell of what was sent before.
SETTLING_S = 2.0
FIRST_PATIENCE_S = 5.0
LONGEST_PATIENCE_S = 60.0
# Congestion so soon after trying more says that it was too much.
FAILED_WITHIN_S = 10.0
_MOST_EXPECTED = 1 << 20  # in a window; more is a receiver that began to count anew


class Congestion:
    """One viewer's network. All times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._since: tuple[float, int, int] | None = (
            None  # the window's beginning, packets lost and sent then
        )
        self._window_s = inf  # the shortest round trip in it
        self._shortest_s = inf
        self._estimate = inf
        self._congested_since: float | None = None
        self._carried = 1.0
        self._clear_since = now
        self._raised_at = -inf
        self._patience_s = FIRST_PATIENCE_S
        self._settled_at = -inf

    def report(self, now: float, lost: int, highest: int, round_trip_s: float | None) -> None:
        """Take a receiver report.

        Args:
            now: when it came.
            lost: packets in all, as the receiver counts them.
            highest: the highest sequence number that came, extended to 32 bits.
            round_trip_s: None if it does not tell.
        """
        if round_trip_s is not None:
            self._shortest_s = min(self._shortest_s, round_trip_s)
            self._window_s = min(self._window_s, round_trip_s)
        if self._since is None:
            self._since = now, lost, highest
        began, lost_then, highest_then = self._since
        if now - began < WINDOW_S:
            return
        expected = (highest - highest_then) & 0xFFFFFFFF
        share = min(max(lost - lost_then, 0) / expected, 1.0) if 0 < expected < _MOST_EXPECTED else 0.0
        queue_s = self._window_s - self._shortest_s if self._window_s < inf else 0.0
        self._since, self._window_s = (now, lost, highest), inf
        self._judge(now, share, queue_s)

    def _judge(self, now: float, lost: float, queue_s: float) -> None:
        if now < self._settled_at or (lost <= TOO_MUCH_LOSS and queue_s <= TOO_LONG_QUEUE_S):
            self._congested_since = None
            return
        if self._congested_since is None:
            self._congested_since, self._carried = now, 1.0
        self._carried = min(self._carried, 1 - lost, self._estimate)
        self._clear_since = now

    def estimate(self, share: float) -> None:
        """Take the receiver's estimate of what gets through, as a share of what is sent."""
        self._estimate = share

    def must_lower(self, now: float) -> float | None:
        """The share of what is sent that gets through, if it has been too little for a while; else None.

        Once told, it begins anew: what is sent then must be given time.
        """
        since = self._congested_since
        if since is None or now - since < CONGESTED_FOR_S:
            return None
        if now - self._raised_at < FAILED_WITHIN_S:
            self._patience_s = min(2 * self._patience_s, LONGEST_PATIENCE_S)
        self._congested_since, self._clear_since, self._settled_at = None, now, now + SETTLING_S
        return self._carried

    def may_raise(self, now: float) -> bool:
        """Whether all has been well for long enough to try more; once told, it begins anew."""
        if self._congested_since is not None or now - self._clear_since < self._patience_s:
            return False
        self._clear_since = self._raised_at = now
        return True
