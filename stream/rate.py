"""How often something happens, over the last few seconds, and how often it may."""

from __future__ import annotations

from collections import deque
from time import monotonic

_TOLERANCE_S = 1e-6  # timestamps are rounded


class Rate:
    """Events a second over the last ``window_s`` seconds; bounded memory."""

    def __init__(self, window_s: float = 3.0, most: int = 512) -> None:
        self._window_s = window_s
        self._times: deque[float] = deque(maxlen=most)

    def tick(self) -> None:
        self._times.append(monotonic())

    def per_second(self) -> float:
        now = monotonic()
        recent = [time for time in list(self._times) if now - time <= self._window_s]
        if len(recent) < 2:
            return 0.0
        return (len(recent) - 1) / max(now - recent[0], 1e-6)


class Throttle:
    """Says which of the frames to take so that there are at most ``per_second`` of them; None takes all.

    By the stream's time, so the choice does not depend on how quickly frames come. A rate that frames do not
    divide evenly is kept on average: of 25 a second, 10 are taken 3, 2, 3, 2 ... apart.
    """

    def __init__(self, per_second: float | None) -> None:
        self._step_s = 1 / per_second if per_second else 0.0
        self._due_s = 0.0

    def is_due(self, time_s: float) -> bool:
        """Whether to take the frame of that time; asked once for each, in order."""
        if time_s < self._due_s - _TOLERANCE_S:
            return False
        # What was missed by more than a step is not made up for.
        self._due_s = max(self._due_s, time_s - self._step_s) + self._step_s
        return True
