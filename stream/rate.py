"""How often something happens, over the last few seconds."""

from __future__ import annotations

from collections import deque
from time import monotonic


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
