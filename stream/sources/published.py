"""A camera that is published to (``whip``): decodes what a browser, a phone or an encoder sends here.

It knows nothing of WebRTC: encoded pictures come through an ``Inlet``.
"""

from __future__ import annotations

from collections import deque
from fractions import Fraction

import av
import av.error
from av import CodecContext, Packet, VideoFrame
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext

from stream.encode import CLOCK_HZ, Codec
from stream.errors import NothingPublished, SourceBroken
from stream.frames import Frame
from stream.planes import as_yuv420p
from stream.sources.base import Listener, SourceInfo, SourceOptions
from stream.sources.clock import Ending, StreamClock
from stream.sources.inlet import NO_PICTURES, Encoded, Inlet

_MOST_BAD_PICTURES = 100  # in a row
_MOST_PIXELS = 8192 * 4320  # of a stranger's picture


class PublishedSource:
    """What the present publisher sends, until it is gone.

    Raises:
        NothingPublished: nobody publishes, or no picture came.
    """

    forwards = "what is published here is not passed on as it is"

    def __init__(self, inlet: Inlet, options: SourceOptions, ending: Ending) -> None:
        self.bad_packets = 0
        self.listener: Listener | None = None
        self._publication = inlet.current()
        self._stall_s = options.stall_s
        self._ending = ending
        self._decoder = _decoder(self._publication.codec)
        self._clock = StreamClock(None, longest_gap_s=max(10.0, options.stall_s))
        self._ready: deque[Frame] = deque()
        self._begun = False
        self._first = self._next()
        if self._first is None:
            raise NothingPublished("stopped before there was a picture")
        picture = self._first.picture
        codec = self._publication.codec
        self.info = SourceInfo(picture.width, picture.height, codec, None, live=True, backend="whip")

    def read(self) -> Frame | None:
        frame, self._first = self._first, None
        return frame or self._next()

    def close(self) -> None:
        self._ending.set()

    def _next(self) -> Frame | None:
        bad_in_a_row = 0
        while not self._ready:
            encoded = self._publication.take(self._stall_s, self._ending)
            if encoded is None:
                if self._ending.is_set():
                    return None
                raise NothingPublished(NO_PICTURES)
            if not (self._begun or encoded.keyframe):  # opened in the middle of a stream
                self._publication.ask()
                continue
            self._begun = True
            try:
                self._ready.extend(self._decode(encoded))
            except av.FFmpegError:
                self.bad_packets += 1
                bad_in_a_row += 1
                self._publication.ask()
            if bad_in_a_row > _MOST_BAD_PICTURES:
                raise SourceBroken(f"{bad_in_a_row} pictures in a row could not be decoded")
        return self._ready.popleft()

    def _decode(self, encoded: Encoded) -> list[Frame]:
        packet = Packet(encoded.data)
        packet.pts, packet.time_base = encoded.timestamp, Fraction(1, CLOCK_HZ)
        return [self._frame(picture, encoded) for picture in self._decoder.decode(packet)]

    def _frame(self, picture: VideoFrame, encoded: Encoded) -> Frame:
        stamp = encoded.timestamp if picture.pts is None else picture.pts
        time_s = self._clock.seconds(stamp / CLOCK_HZ)
        return Frame(as_yuv420p(picture), encoded.index, time_s, encoded.arrived_at)


def _decoder(codec: Codec) -> VideoCodecContext:
    """One thread, no delay: a picture comes out as soon as it is in."""
    decoder = CodecContext.create(codec, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_type = "SLICE"
    decoder.flags |= Flags.low_delay
    decoder.options = {"max_pixels": str(_MOST_PIXELS)}
    return decoder
