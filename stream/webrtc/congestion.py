"""Whether a viewer's network carries what it is sent: when to send less, and when to try more again.

Receiver reports (RFC 3550) tell of loss and of round trips, which grow with the queues on the way. REMB
(draft-alvestrand-rmcat-remb) tells how much gets through; alone it is no alarm, as it lags behind a picture
that begins to move. Knows nothing of packets, renditions or hubs.
"""

from __future__ import annotations

from math import inf

# As in Google's congestion control (draft-ietf-rmcat-gcc section 6): more loss than this is congestion.
TOO_MUCH_LOSS = 0.10
# A round trip that takes so much longer than the shortest waits in somebody's queue.
TOO_LONG_QUEUE_S = 0.25
CONGESTED_FOR_S = 1.5
# For so long after a step down, reports still tell of what was sent before.
SETTLING_S = 2.0
FIRST_PATIENCE_S = 5.0
LONGEST_PATIENCE_S = 60.0
# Congestion so soon after trying more says that it was too much.
FAILED_WITHIN_S = 10.0


class Congestion:
    """One viewer's network. All times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._shortest_s = inf
        self._estimate = inf
        self._congested_since: float | None = None
        self._carried = 1.0
        self._clear_since = now
        self._raised_at = -inf
        self._patience_s = FIRST_PATIENCE_S
        self._settled_at = -inf

    def report(self, now: float, lost: float, round_trip_s: float | None) -> None:
        """Take a receiver report: the fraction of packets lost since the last, and the round trip if it tells."""
        queue_s = 0.0
        if round_trip_s is not None:
            self._shortest_s = min(self._shortest_s, round_trip_s)
            queue_s = round_trip_s - self._shortest_s
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
