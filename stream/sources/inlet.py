"""``Inlet``: where the pictures of a publisher reach a camera that does not fetch its own.

The event loop puts encoded pictures in, the camera's decode thread takes them out. Knows nothing of
how they came, or of decoding.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from stream.encode import Codec
from stream.errors import NothingPublished
from stream.sources.clock import Ending

# Half a second at 30 frames a second. A decoder that is further behind would only fall back more.
QUEUE_PICTURES = 15
NO_PICTURES = "the publisher sends no pictures"
_NOTICE_S = 0.1


@dataclass(frozen=True, slots=True)
class Encoded:
    """One whole picture as it was published.

    ``index`` counts pictures and has gaps where some were dropped; ``arrived_at`` is monotonic seconds.
    """

    data: bytes
    timestamp: int  # of 90 kHz
    keyframe: bool
    index: int
    arrived_at: float


class Publication:
    """What one publisher sends: a bounded queue that begins with a keyframe.

    On overflow all that waits is dropped, and ``resync`` is called, which is to see to it that the
    next picture is a keyframe. ``ask`` may be called by the decoder: a picture was damaged.
    """

    def __init__(self, codec: Codec, changed: threading.Condition, limit: int = QUEUE_PICTURES) -> None:
        self.codec: Codec = codec
        self.resync: Callable[[], None] = lambda: None
        self.ask: Callable[[], None] = lambda: None
        self._changed = changed  # guards all that follows
        self.over: str | None = None  # why, once it is
        self._limit = limit
        self._queue: deque[Encoded] = deque()
        self._count = 0

    @property
    def waiting(self) -> bool:
        """There is a picture to take."""
        return bool(self._queue)

    def put(self, data: bytes, timestamp: int, keyframe: bool) -> None:
        """Queue a picture."""
        picture = Encoded(data, timestamp, keyframe, self._count, time.monotonic())
        self._count += 1
        with self._changed:
            full = len(self._queue) >= self._limit
            if full:
                self._queue.clear()
            if keyframe or not full:
                self._queue.append(picture)
            self._changed.notify_all()
        if full and not keyframe:
            self.resync()

    def take(self, timeout_s: float, ending: Ending) -> Encoded | None:
        """The next picture. None: none came in time, or it is the end.

        Raises:
            NothingPublished: the publisher is gone, and all that it sent was taken.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._queue and not ending.is_set():
                if self.over is not None:
                    raise NothingPublished(self.over)
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    break
                ending.rest()
                self._changed.wait(min(left_s, _NOTICE_S))
            return self._queue.popleft() if self._queue and not ending.is_set() else None

    def end(self, why: str) -> None:
        """Nothing more will come."""
        with self._changed:
            self.over = why
            self._changed.notify_all()


class Inlet:
    """The one place at which a camera can be published to, taken or free. ``closed``: the camera is no more."""

    def __init__(self) -> None:
        self.closed = False
        self._changed = threading.Condition()
        self._publication: Publication | None = None

    def prepare(self, codec: Codec) -> Publication:
        """A publication for somebody who is about to connect."""
        return Publication(codec, self._changed)

    def connect(self, publication: Publication) -> None:
        """A publisher is there, in the place of the one before."""
        with self._changed:
            self._publication = publication
            self._changed.notify_all()

    def current(self) -> Publication:
        """The publication that has something to take.

        Raises:
            NothingPublished: there is none; says why not.
        """
        publication = self._publication
        if publication is None or not publication.waiting:
            raise NothingPublished(self._why_not)
        return publication

    def wait(self, why_not: str, stop: threading.Event) -> None:
        """Until there is something to take, or another reason why not, or ``stop`` is set.

        All but ``stop``, which is noticed within 0.1 s, end it at once.
        """
        with self._changed:
            while not stop.is_set() and self._why_not == why_not:
                if self._publication is not None and self._publication.waiting:
                    return
                self._changed.wait(_NOTICE_S)

    @property
    def _why_not(self) -> str:
        if self._publication is None:
            return "nobody publishes yet"
        return self._publication.over or NO_PICTURES
