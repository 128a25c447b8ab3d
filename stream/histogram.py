"""``Histogram``: how often a value fell where, counted in the thread that knows it and read by another.

No lock: one thread observes, and readers may miss the observation of this very moment. Knows nothing of what
is measured or how it is exposed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

AGE_BOUNDS_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0)
RUN_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5)
BATCH_BOUNDS = (1, 2, 3, 4, 6, 8)


class Histogram:
    """Counts by upper bound, the last of which is infinity, and the sum of what was observed.

    Args:
        bounds: inclusive upper bounds, ascending.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value. Call from one thread."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, float]]:
        """As Prometheus wants them: (upper bound, how many are not above it)."""
        total, buckets = 0, []
        for bound, count in zip((*map(str, map(float, self.bounds)), "+Inf"), self.counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return buckets


def merged(histograms: Iterable[Histogram], bounds: Sequence[float]) -> Histogram:
    """Their sum; all have these bounds."""
    total = Histogram(bounds)
    for each in histograms:
        total.counts = [ours + theirs for ours, theirs in zip(total.counts, each.counts, strict=True)]
        total.sum += each.sum
    return total
