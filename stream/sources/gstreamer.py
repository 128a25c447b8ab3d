"""Sources through GStreamer: RTSP, RTMP, HTTP, HLS, V4L2 devices and files, decoded in hardware where it can be.

``GStreamerSource`` plays a ``Graph`` (``gstreamer_graph.py``) and takes its pictures, polling its bus while it
waits; there is no main loop. Stopping a graph may hang with its camera, so this is put behind
``stream/sources/detached.py``. To import it needs PyGObject and GStreamer's typelibs (ImportError, ValueError).

It knows nothing of reconnecting: a source that failed is closed and opened anew by its owner.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Literal

import numpy as np
from av import VideoFrame

from stream.errors import NoVideo, SourceBroken, SourceTimeout
from stream.frames import AccessUnit, Frame
from stream.h264 import Profile
from stream.planes import FULL_RANGE, LIMITED_RANGE, Plane, views
from stream.sources.base import Listener, SourceInfo, SourceOptions
from stream.sources.clock import Ending, StreamClock
from stream.sources.gstreamer_faults import (
    is_refusal,
    no_video_in,
    opening_fault,
    reading_fault,
    unable_fault,
)
from stream.sources.gstreamer_graph import (
    MOST_BACKLOG_S,
    DecoderFailed,
    Graph,
    Gst,
    GstVideo,
    comes_from,
    origin_of,
)
from stream.sources.tap import INTERLACED, not_h264

__all__ = ["GStreamerSource"]

_NOTICE_NS = 50 * Gst.MSECOND
_TELLING = Gst.MessageType.ERROR | Gst.MessageType.EXTENDED  # of which a stream collection is one
_LEAST_RATE, _MOST_RATE = 0.01, 1000  # what a stream may say without being doubted
_MATRIX = {  # as AVColorSpace numbers them
    GstVideo.VideoColorMatrix.BT709: 1,
    GstVideo.VideoColorMatrix.FCC: 4,
    GstVideo.VideoColorMatrix.BT601: 6,
    GstVideo.VideoColorMatrix.SMPTE240M: 7,
    GstVideo.VideoColorMatrix.BT2020: 9,
}
_RANGES = {1: FULL_RANGE, 2: LIMITED_RANGE}  # GstVideoColorRange, whose names are no names in Python
_MICROSECOND = Fraction(1, 1_000_000)
_ALIGNED = 64  # pixels: rows begin where swscale and the encoders like them to


class GStreamerSource:
    """A stream, device or file, decoded by GStreamer's own threads.

    Args:
        kind: of the address.
        address: a URL or a path.
        options: how to open and play it; ``loop`` and ``start_s`` are not for GStreamer.
        ending: ends opening and reading early.

    Raises:
        SourceError: a subclass that says why it cannot be opened.
        DeviceUnavailable: GStreamer lacks a plugin for it.
    """

    bad_packets = 0  # GStreamer's decoders skip what they cannot decode, and do not say so

    def __init__(
        self,
        kind: Literal["network", "device", "file"],
        address: str,
        options: SourceOptions,
        ending: Ending,
    ) -> None:
        self._origin = origin_of(kind, address)
        self._options = options
        self._ending = ending
        self._listener: Listener | None = None
        self._reading = threading.Lock()  # a graph must not be closed under its reader
        self._index = -1
        self._rendered = 0  # pictures that had come before the newest was taken
        self._layout = Layout()
        self._graph, self._first = self._open(time.monotonic() + options.open_timeout_s)
        self.info = self._describe(self._first)
        self._clock = StreamClock(self.info.frame_rate, longest_gap_s=max(10.0, options.stall_s))

    @property
    def listener(self) -> Listener | None:
        return self._listener

    @listener.setter
    def listener(self, listener: Listener | None) -> None:
        self._listener = listener
        if self._graph.units is not None:
            self._graph.units.wanted = listener is not None

    @property
    def forwards(self) -> Profile | str:
        if self._graph.units is None:
            return not_h264(self.info.codec)
        return INTERLACED if self._layout.interlaced else self._graph.units.forwards

    def read(self) -> Frame | None:
        with self._reading:
            if self._ending.is_set():
                return None
            sample = self._first or self._next(self._graph, time.monotonic() + self._options.stall_s)
            self._first = None
            return None if sample is None else self._frame(sample)

    def close(self) -> None:
        self._ending.set()
        with self._reading:
            self._graph.close()

    def _open(self, deadline: float) -> tuple[Graph, Gst.Sample]:
        """Play until a picture comes. A decoder that fails before that is left out, and the next one tried."""
        failed: frozenset[str] = frozenset()
        while True:
            graph = Graph(self._origin, self._options, failed)
            try:
                return graph, self._begin(graph, deadline)
            except DecoderFailed as failure:
                graph.close()
                failed |= {failure.decoder}
            except BaseException:
                graph.close()
                raise

    def _begin(self, graph: Graph, deadline: float) -> Gst.Sample:
        """The first picture. Where none paces the stream, it is played in its own time if it has an end."""
        graph.play()
        sample = self._next(graph, deadline, opening=True)
        if sample is None:
            raise SourceTimeout(f"{self._origin.name}: stopped while it was being opened")
        graph.pace(self._origin.sender_paces)
        return sample

    def _next(self, graph: Graph, deadline: float, opening: bool = False) -> Gst.Sample | None:
        """The next picture; None at the end of what may end, or of reading."""
        while not self._ending.is_set():
            self._look_at_bus(graph, opening)
            self._rendered = graph.rendered
            sample = graph.sink.try_pull_sample(0 if graph.fault is not None else _NOTICE_NS)
            if sample is not None:
                return sample
            if graph.fault is not None:
                raise graph.fault
            if graph.units is not None:
                graph.units.collect()
            if graph.sink.is_eos():
                self._at_end(graph, opening)
                return None
            if time.monotonic() > deadline:
                raise self._silence(opening)
        return None

    def _look_at_bus(self, graph: Graph, opening: bool) -> None:
        """Empty the bus, and keep the first fault in it until there are no more pictures."""
        while (message := graph.bus.pop_filtered(_TELLING)) is not None:
            if message.type == Gst.MessageType.ERROR:
                graph.fault = graph.fault or self._fault(graph, message, opening)
            elif message.type == Gst.MessageType.STREAM_COLLECTION and opening and graph.is_one_stream:
                streams = message.parse_stream_collection()
                graph.fault = graph.fault or no_video_in(streams, self._origin.name)

    def _at_end(self, graph: Graph, opening: bool) -> None:
        """Nothing, where the stream may end."""
        if opening and graph.decoder is not None:
            raise DecoderFailed(graph.decoder_name)
        if opening:
            raise NoVideo(f"{self._origin.name}: there is not one picture in it; expected a video")
        if self.info.live:
            raise SourceBroken(f"{self._origin.name}: the sender ended the stream; check the camera")

    def _fault(self, graph: Graph, message: Gst.Message, opening: bool) -> Exception:
        error, _ = message.parse_error()  # the second is for programmers, and has addresses in it
        if not opening:
            return reading_fault(error, self._origin.name)
        if graph.decoder is not None and (comes_from(message, graph.decoder) or is_refusal(error)):
            return DecoderFailed(graph.decoder_name)
        if self._origin.kind == "uri" and message.src == graph.source:
            unable = unable_fault(error, self._origin.name)
            if unable is not None:
                return unable
        details = message.parse_error_details()
        return opening_fault(
            error, details, self._origin.name, self._origin.address, comes_from(message, graph.source)
        )

    def _silence(self, opening: bool) -> SourceTimeout:
        name, options = self._origin.name, self._options
        if opening:
            return SourceTimeout(
                f"{name}: no answer within {options.open_timeout_s:g} s; check the address and the network"
            )
        return SourceTimeout(
            f"{name}: no picture for {options.stall_s:g} s; check the camera and its network"
        )

    def _describe(self, sample: Gst.Sample) -> SourceInfo:
        graph, layout = self._graph, self._layout
        layout.take(sample.get_caps())
        if graph.units is not None:
            graph.units.collect()
        how = "in hardware" if graph.in_hardware else "in software"
        return SourceInfo(
            layout.width,
            layout.height,
            graph.codec,
            layout.frame_rate,
            live=self._origin.sender_paces or not graph.has_duration,
            backend="gstreamer",
            reason=f"decoded by {graph.decoder_name} {how}" if graph.decoder_name else "not compressed",
        )

    def _frame(self, sample: Gst.Sample) -> Frame:
        if self._graph.backlog_s > MOST_BACKLOG_S and self._options.pace == "realtime":
            raise SourceBroken(
                f"{self._origin.name}: decoding is {MOST_BACKLOG_S:g} s behind the camera; "
                "set the camera to a smaller picture or rate"
            )
        buffer = sample.get_buffer()
        self._layout.take(sample.get_caps())
        picture = self._layout.picture(buffer)
        captured_at = time.monotonic()
        time_s = self._time_of(buffer.pts, captured_at)
        left_out = self._options.pace != "lossless"
        self._index = max(self._index + 1, self._rendered - 1 if left_out else 0)
        return Frame(picture, self._index, time_s, captured_at)

    def _time_of(self, stamp_ns: int, captured_at: float) -> float:
        """The time of a picture, after its access unit, and those of pictures left out, were passed on."""
        units, listener, layout = self._graph.units, self._listener, self._layout
        time_s = None
        for unit_ns, data, keyframe in units.until(stamp_ns) if units is not None else ():
            time_s = self._seconds(unit_ns)
            if listener is not None and not layout.interlaced:
                listener(AccessUnit(data, keyframe, layout.width, layout.height, time_s, captured_at))
        return self._seconds(stamp_ns) if time_s is None else time_s

    def _seconds(self, stamp_ns: int) -> float:
        return self._clock.seconds(None if stamp_ns == Gst.CLOCK_TIME_NONE else stamp_ns / Gst.SECOND)


class Layout:
    """How the stream's pictures lie in memory and what their colours mean, until its caps change."""

    def __init__(self) -> None:
        self._caps: Gst.Caps | None = None
        self.width = self.height = 0
        self.frame_rate: float | None = None
        self.interlaced = False

    def take(self, caps: Gst.Caps) -> None:
        if self._caps is not None and caps.is_equal(self._caps):
            return
        self._caps = caps
        self._info = info = GstVideo.VideoInfo.new_from_caps(caps)
        self.width, self.height = info.width, info.height
        rate = info.fps_n / info.fps_d if info.fps_d else 0.0
        self.frame_rate = rate if _LEAST_RATE <= rate <= _MOST_RATE else None
        self.interlaced = info.interlace_mode != GstVideo.VideoInterlaceMode.PROGRESSIVE
        self._packed_chroma = info.finfo.format == GstVideo.VideoFormat.NV12
        self._color_range = _RANGES.get(info.colorimetry.range)
        self._colorspace = _MATRIX.get(info.colorimetry.matrix)

    def picture(self, buffer: Gst.Buffer) -> VideoFrame:
        """A copy, as yuv420p: the buffer goes back to its decoder, which has few where it is hardware."""
        picture = _blank(self.width, self.height)
        meta = GstVideo.buffer_get_video_meta(buffer) or self._info
        offsets, strides = list(meta.offset), list(meta.stride)
        packed = self._packed_chroma  # U and V share a plane and take turns in it
        if packed:
            offsets, strides = [*offsets[:2], offsets[1] + 1], [*strides[:2], strides[1]]
        with _mapped(buffer) as data:
            for number, target in enumerate(views(picture)):
                step = 2 if packed and number else 1
                plane = np.ndarray(target.shape, np.uint8, data, offsets[number], (strides[number], step))
                np.copyto(target, plane)
        picture.pts = None if buffer.pts == Gst.CLOCK_TIME_NONE else buffer.pts // Gst.USECOND
        picture.time_base = _MICROSECOND
        if self._color_range is not None:
            picture.color_range = self._color_range
        if self._colorspace is not None:
            picture.colorspace = self._colorspace
        return picture


def _blank(width: int, height: int) -> VideoFrame:
    """A yuv420p picture whose pixels mean nothing yet.

    On numpy's memory, which is used again: at 1280x720 the system takes 0.8 ms to give FFmpeg new pages.
    """
    if width % 2 or height % 2:
        return VideoFrame(width, height, "yuv420p")
    rows, stride = height * 3 // 2, -(-width // _ALIGNED) * _ALIGNED
    memory: Plane = np.empty((rows + 1, stride), np.uint8)  # a row more: swscale reads a little past the end
    return VideoFrame.from_numpy_buffer(memory[:rows], "yuv420p", width)


class _MapInfo(ctypes.Structure):
    """GstMapInfo. PyGObject's own gives the data as a copy."""

    _fields_ = (
        ("memory", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("maxsize", ctypes.c_size_t),
        ("reserved", ctypes.c_void_p * 8),
    )


_GSTREAMER = ctypes.CDLL("libgstreamer-1.0.so.0")
_GSTREAMER.gst_buffer_map.argtypes = (ctypes.c_void_p, ctypes.POINTER(_MapInfo), ctypes.c_int)
_GSTREAMER.gst_buffer_unmap.argtypes = (ctypes.c_void_p, ctypes.POINTER(_MapInfo))
_GSTREAMER.gst_buffer_unmap.restype = None


@contextmanager
def _mapped(buffer: Gst.Buffer) -> Iterator[memoryview[int]]:
    """A buffer's own memory, to read, until the end of the block. A wrapper's hash is what it wraps."""
    address, info = hash(buffer), _MapInfo()
    if not _GSTREAMER.gst_buffer_map(address, info, int(Gst.MapFlags.READ)):
        raise SourceBroken("a picture's memory cannot be read")
    try:
        yield memoryview((ctypes.c_uint8 * info.size).from_address(info.data)).cast("B")
    finally:
        _GSTREAMER.gst_buffer_unmap(address, info)
