"""A source read in a thread of its own, so that nobody waits for it longer than they want.

FFmpeg may block for seconds where nothing can wake it: name lookup, a camera that stopped sending, a
device driver. Here that happens in a daemon thread; opening, ``read`` and ``close`` return in time
whatever it does. A thread left behind ends by itself as soon as FFmpeg's own timeout passes.

For who reads a source offline; the live app watches over its own threads (``stream/connection.py``). It knows
no backend: it is given a function that opens one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from stream.errors import SourceTimeout
from stream.frames import Frame
from stream.h264 import Profile
from stream.latest import Latest
from stream.sources.base import Listener, Source, SourceInfo, SourceOptions
from stream.sources.clock import Ending

_NOTICE_S = 0.1
_GRACE_S = 0.5  # FFmpeg's own timeout on opening comes first where it works: it knows more


class DetachedSource:
    """Runs ``open_it`` and then reads what it gave, in a daemon thread; hands over the newest picture.

    Args:
        open_it: opens the real source, which is to end as it is told; called in the thread.
        name: the source for people, redacted.
        stop: ends opening and reading early.

    Raises:
        LookoutError: whatever ``open_it`` raised.
        SourceTimeout: it took longer than ``options.open_timeout_s``, or was ended meanwhile.
    """

    info: SourceInfo

    def __init__(
        self,
        open_it: Callable[[Ending], Source],
        name: str,
        options: SourceOptions,
        stop: threading.Event | None,
    ) -> None:
        self._open_it = open_it
        self._name = name
        self._stall_s = options.stall_s
        self._ending = Ending(stop)
        self._frames = Latest[Frame](lossless=options.pace == "lossless")
        self._opened = threading.Event()
        self._fault: Exception | None = None
        self._source: Source | None = None
        threading.Thread(target=self._run, name=f"source {name}", daemon=True).start()
        self._await_opening(options.open_timeout_s)

    @property
    def bad_packets(self) -> int:
        return self._opened_source.bad_packets

    @property
    def forwards(self) -> Profile | str:
        return self._opened_source.forwards

    @property
    def listener(self) -> Listener | None:
        return self._opened_source.listener

    @listener.setter
    def listener(self, listener: Listener | None) -> None:
        """It is called in the thread that reads, so it misses nothing that ``read`` leaves out."""
        self._opened_source.listener = listener

    @property
    def _opened_source(self) -> Source:
        assert self._source is not None  # or this would not have been made
        return self._source

    def read(self) -> Frame | None:
        deadline = time.monotonic() + self._stall_s
        while not self._ending.is_set():
            frame = self._frames.get(_NOTICE_S)
            if frame is not None:
                return frame
            if self._frames.closed:
                if self._fault is not None:
                    raise self._fault
                return None
            if time.monotonic() > deadline:
                raise SourceTimeout(f"{self._name}: no picture for {self._stall_s:g} s; check the camera")
        return None

    def close(self) -> None:
        self._ending.set()
        if self._source is not None:
            self._source.listener = None
        self._frames.close()

    def _await_opening(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s + _GRACE_S
        while not self._opened.wait(_NOTICE_S):
            ended = self._ending.is_set()
            if ended or time.monotonic() > deadline:
                self.close()
                why = "stopped while it was being opened" if ended else f"no video within {timeout_s:g} s"
                raise SourceTimeout(f"{self._name}: {why}")
        if self._fault is not None:
            raise self._fault

    def _run(self) -> None:
        try:
            self._source = source = self._open_it(Ending(self._ending))
            self.info = source.info
            self._opened.set()
            while (frame := source.read()) is not None and self._frames.put(frame):
                pass
        except Exception as fault:  # raised again in the thread that opens or reads
            self._fault = fault
        finally:
            self._frames.close()
            self._opened.set()
            if self._source is not None:
                self._source.close()
