"""``Units``: the access units of an H.264 stream that GStreamer plays, for who wants the camera's own.

``tap.py`` does the same for PyAV. Knows nothing of viewers, and not when a picture is due.
"""

from __future__ import annotations

from collections import deque

from stream.h264 import IDR, Profile, has_b_slices, unit_types
from stream.sources.gstreamer_library import Gst
from stream.sources.tap import B_PICTURES, profile_named

MOST_UNITS = 256  # waiting for their pictures; a camera's 10 s or so
_UNITS_LOOKED_AT = 50  # of a stream that nobody listens to: enough to see whether it has B-frames


class Units:
    """An H.264 stream's access units, found by the time stamps of their pictures.

    They come past the valve while somebody listens, and at first, to see what kind of stream it is. Where
    the sink of the pictures left some out, their units come with the next one's.
    """

    def __init__(self, valve: Gst.Element, sink: Gst.Element) -> None:
        self.valve = valve
        self._sink = sink
        self._waiting: deque[tuple[int, bytes]] = deque()
        self.wanted = False  # somebody listens; may be set by any thread, all else is the reader's
        self._shut = False
        self._looked_at = 0
        self._profile: str | None = None
        self._refusal = ""
        sink.set_property("async", False)
        valve.link(sink)
        sink.sync_state_with_parent()
        valve.sync_state_with_parent()

    @property
    def forwards(self) -> Profile | str:
        """The profile of the stream, or in words why browsers cannot show it."""
        return self._refusal or profile_named((self._profile or "").replace("-", " ").title())

    def collect(self) -> None:
        """Take what has come; to be called again and again, or the pictures stop too."""
        shut = not self.wanted and self._looked_at > _UNITS_LOOKED_AT
        if shut != self._shut:
            self._shut = shut
            self.valve.set_property("drop", shut)
        while (sample := self._sink.try_pull_sample(0)) is not None:
            buffer = sample.get_buffer()
            data = buffer.extract_dup(0, buffer.get_size())
            self._profile = sample.get_caps().get_structure(0).get_string("profile")
            if has_b_slices(data):
                self._refusal = B_PICTURES
            self._looked_at += 1
            self._waiting.append((buffer.pts, data))
        if shut or len(self._waiting) > MOST_UNITS:  # or the decoder does not keep their time stamps
            self._waiting.clear()

    def until(self, stamp_ns: int) -> list[tuple[int, bytes, bool]]:
        """(time stamp, data, whether it is a keyframe) of each unit up to a picture's own."""
        self.collect()
        if all(stamp != stamp_ns for stamp, _ in self._waiting):
            return []
        given: list[tuple[int, bytes, bool]] = []
        while not given or given[-1][0] != stamp_ns:
            stamp, data = self._waiting.popleft()
            given.append((stamp, data, IDR in unit_types(data)))
        return given if self.wanted and not isinstance(self.forwards, str) else []
