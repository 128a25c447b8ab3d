"""Time for sources: timestamps that only grow, and playing a file at its own speed.

It knows nothing of containers or codecs.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace

from stream.frames import Frame

_MAX_GAP_S = 10.0  # a longer jump is another clock, not a pause
_JITTER_S = 1.0  # a shorter step backwards is one picture out of order, not another clock
_TINY_S = 1e-3
_NOTICE_S = 0.1
_FORGIVEN_S = 0.1  # lateness beyond this is not made up for


class StreamClock:
    """Turns a stream's own timestamps into seconds from 0 that strictly grow.

    A missing timestamp is taken as one frame after the last. A small step backwards is flattened;
    a big jump in either direction (a camera that set its clock, a file that starts again) is closed.
    """

    def __init__(self, frame_rate: float | None, longest_gap_s: float = _MAX_GAP_S) -> None:
        self._longest_gap_s = longest_gap_s
        self._step_s = 1 / frame_rate if frame_rate else 0.04
        self._offset_s: float | None = None  # stream time minus the stream's own timestamps
        self._last_s = -1.0
        self._expected_s = 0.0

    def restart(self) -> None:
        """The stream begins again: whatever timestamp comes next is one frame after the last."""
        self._offset_s = None

    def seconds(self, stamp_s: float | None) -> float:
        """The time of the next picture, whose own timestamp is ``stamp_s`` (None: it has none)."""
        time_s = self._expected_s
        if stamp_s is not None:
            offset_s = self._offset_s
            if offset_s is None or self._is_another_clock(stamp_s + offset_s):
                offset_s = self._expected_s - stamp_s
            self._offset_s = offset_s
            time_s = stamp_s + offset_s
        self._last_s = max(time_s, self._last_s + _TINY_S)
        self._expected_s = self._last_s + self._step_s
        return self._last_s

    def _is_another_clock(self, time_s: float) -> bool:
        jump_s = time_s - self._expected_s
        return jump_s < -_JITTER_S or jump_s > max(self._longest_gap_s, 4 * self._step_s)


class CameraClock:
    """Keeps ``time_s`` and ``index`` growing when a source is opened again and starts at zero.

    The first that comes after a restart, picture or access unit, from whichever thread, sets the time.
    """

    def __init__(self) -> None:
        self._last: Frame | None = None
        self._time_offset_s = 0.0
        self._index_offset = 0
        self._lock = threading.Lock()
        self._time_restarted = self._index_restarted = False

    def restart(self) -> None:
        with self._lock:
            self._time_restarted = self._index_restarted = self._last is not None

    def aligned_s(self, time_s: float, captured_at: float) -> float:
        """The camera's time of what its source says was at ``time_s``."""
        with self._lock:
            if self._time_restarted and self._last is not None:
                gap_s = max(captured_at - self._last.captured_at, 1e-3)
                self._time_offset_s = self._last.time_s + gap_s - time_s
                self._time_restarted = False
            return time_s + self._time_offset_s

    def align(self, frame: Frame) -> Frame:
        time_s = self.aligned_s(frame.time_s, frame.captured_at)
        if self._index_restarted and self._last is not None:
            self._index_offset = self._last.index + 1 - frame.index
            self._index_restarted = False
        self._last = replace(frame, time_s=time_s, index=frame.index + self._index_offset)
        return self._last


class Ending(threading.Event):
    """Says that reading is to end: the source was closed, or what it belongs to has ended (``stop``).

    It is also where a source shows that it waits of its own accord, as a film that is paced does:
    ``rested_at`` is when it last did, in monotonic seconds.
    """

    def __init__(self, stop: threading.Event | None = None) -> None:
        super().__init__()
        self.rested_at = 0.0
        self._stop = stop

    def is_set(self) -> bool:
        return super().is_set() or (self._stop is not None and self._stop.is_set())

    def rest(self) -> None:
        """Whoever reads here is waiting, and does not hang."""
        self.rested_at = time.monotonic()
        if isinstance(self._stop, Ending):
            self._stop.rest()

    def wait(self, timeout: float | None = None) -> bool:
        """Rest for ``timeout`` seconds, or until the end, which is noticed within 0.1 s. True: it is the end."""
        until = math.inf if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            left_s = until - time.monotonic()
            if left_s <= 0:
                return False
            self.rest()
            super().wait(min(left_s, _NOTICE_S))
        return True


class Pacer:
    """Waits until a picture is due, so that a file plays like a camera.

    A little lateness is made up for; more than that is forgiven by moving the clock, so a stall is
    not followed by a burst and lateness never adds up.
    """

    def __init__(self, ending: Ending) -> None:
        self._ending = ending
        self._start: float | None = None  # monotonic seconds at stream time 0

    def wait(self, time_s: float) -> bool:
        """Wait for the moment of stream time ``time_s``. False: it is the end instead."""
        now = time.monotonic()
        if self._start is None or now - (self._start + time_s) > _FORGIVEN_S:
            self._start = now - time_s
        due_in_s = self._start + time_s - now
        return not self._ending.wait(due_in_s)
