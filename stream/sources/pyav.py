"""Sources through PyAV: files, RTSP, RTMP, HTTP, and V4L2 devices.

``PyavSource`` demuxes and decodes in the thread that reads it. FFmpeg cannot be interrupted from
outside: who must not hang with it has it read by another thread (``stream/connection.py``,
``stream/sources/detached.py``).

It knows nothing of reconnecting: a source that failed is closed and opened anew by its owner.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

import av
import av.error
from av import Packet, VideoFrame
from av.codec.context import CodecContext, Flags
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from stream.errors import CodecUnsupported, DeviceUnavailable, LookoutError, NoVideo, SourceBroken
from stream.frames import Frame
from stream.h264 import Profile
from stream.planes import as_yuv420p
from stream.sources.base import Listener, SourceInfo, SourceOptions
from stream.sources.clock import Ending, Pacer, StreamClock
from stream.sources.faults import opening_fault, reading_fault
from stream.sources.seek import begin_at
from stream.sources.tap import Tap

_MOST_BAD_PACKETS = 100  # in a row
_MOST_PIXELS_FOR_ONE_CORE = 1920 * 1088
_LEAST_RATE, _MOST_RATE = 0.01, 1000  # what a container may say without being doubted
_TEXT_CODECS = ("ansi", "bintext", "xbin", "idf")  # FFmpeg renders text files as video


@dataclass(frozen=True, slots=True)
class Input:
    """What to hand FFmpeg, and what to call it in messages.

    Args:
        address: path, device path or URL, as FFmpeg takes it.
        name: the same for people, redacted.
        format: FFmpeg's demuxer, None to let it find out.
        settings: FFmpeg's options for the demuxer and the protocol.
        is_file: local, so it never blocks and has no timeouts.
        sender_paces: pictures come when a camera makes them; otherwise they are there to be fetched.
    """

    address: str
    name: str
    format: str | None = None
    settings: dict[str, str] = field(default_factory=dict)
    is_file: bool = False
    sender_paces: bool = False


class PyavSource:
    """A file, stream or device, decoded where it is read.

    Raises:
        SourceError: a subclass that says why it cannot be opened.
    """

    def __init__(self, source: Input, options: SourceOptions, ending: Ending) -> None:
        self.bad_packets = 0
        self.listener: Listener | None = None
        self._input = source
        self._options = options
        self._ending = ending
        self._container = _open(source, options)
        self._pictures = self._play()
        self._first: VideoFrame | None = None
        try:
            self._stream = _video_stream(self._container, source)
            self._tap = Tap(self._stream)
            self._from_s = self._seek()
            # What was not announced, or whether there is anything from there on, the first picture tells.
            if not self._stream.codec_context.width or options.start_s:
                self._first = next(self._pictures, None)
        except LookoutError:
            self._container.close()
            raise
        sender_paces = source.sender_paces or (not source.is_file and self._container.duration is None)
        realtime = options.pace == "realtime"
        self.info = _info(self._stream, options, live=sender_paces or (options.loop and realtime))
        self._clock = StreamClock(self.info.frame_rate, longest_gap_s=max(10.0, options.stall_s))
        self._pacer = Pacer(ending) if realtime and not sender_paces else None
        self._index = 0
        self._reading = threading.Lock()  # a container must not be closed under its reader

    @property
    def forwards(self) -> Profile | str:
        return self._tap.forwards

    def read(self) -> Frame | None:
        with self._reading:
            return self._read()

    def close(self) -> None:
        self._ending.set()
        with self._reading:
            self._pictures.close()
            self._container.close()

    def _read(self) -> Frame | None:
        picture = self._first or next(self._pictures, None)
        self._first = None
        if picture is None or self._ending.is_set():
            return None
        stamp = picture.pts
        base = picture.time_base or self._stream.time_base
        time_s = self._clock.seconds(None if stamp is None or base is None else float(stamp * base))
        if self._pacer is not None and not self._pacer.wait(time_s):
            return None
        captured_at = time.monotonic()
        unit, listener = self._tap.unit(picture, time_s, captured_at), self.listener
        if unit is not None and listener is not None:
            listener(unit)
        frame = Frame(as_yuv420p(picture), self._index, time_s, captured_at)
        self._index += 1
        return frame

    def _play(self) -> Generator[VideoFrame, None, None]:
        """The pictures, once or, looped, again and again."""
        while True:
            empty = True
            for picture in self._decode():
                if picture.time is None or picture.time >= self._from_s:
                    empty = False
                    yield picture
            if self._ending.is_set():
                return
            if empty:
                raise NoVideo(f"{self._input.name}: {self._why_empty()}")
            if self._input.sender_paces:
                raise SourceBroken(f"{self._input.name}: the sender ended the stream; check the camera")
            if not self._options.loop:
                return
            self._rewind()

    def _why_empty(self) -> str:
        if self._options.start_s:
            return f"there is no picture at {self._options.start_s:g} s or later; begin before its end"
        return "there is not one picture in it; expected a video"

    def _rewind(self) -> None:
        """Back to where it began by opening anew: seeking is not exact in every format."""
        self._container.close()
        self._container = _open(self._input, self._options)
        self._stream = _video_stream(self._container, self._input)
        self._tap = Tap(self._stream)
        self._from_s = self._seek()
        self._clock.restart()

    def _seek(self) -> float:
        """Go to where the options say it begins; the stream's time, seconds, before which nothing is shown."""
        if not self._options.start_s:
            return -math.inf
        return begin_at(self._container, self._stream, self._options.start_s, self._input.name)

    def _decode(self) -> Iterator[VideoFrame]:
        """Every picture from here to the end; what cannot be decoded is counted and skipped."""
        bad_in_a_row = 0
        packets = self._container.demux(self._stream)
        while not self._ending.is_set():
            packet = self._next_packet(packets)
            if packet is None:
                return
            try:
                if self.listener is not None:
                    self._tap.mark(packet)
                pictures = packet.decode()
            except av.error.EOFError:
                return
            except av.FFmpegError:
                self.bad_packets += 1
                bad_in_a_row += 1
                pictures = []
            if bad_in_a_row > _MOST_BAD_PACKETS:
                raise SourceBroken(
                    f"{self._input.name}: {bad_in_a_row} packets in a row could not be decoded"
                )
            if pictures:
                bad_in_a_row = 0
            yield from pictures

    def _next_packet(self, packets: Iterator[Packet[VideoStream]]) -> Packet[VideoStream] | None:
        fault = None
        try:
            return next(packets, None)
        except IndexError:  # at the end PyAV stumbles over streams that appeared while it read
            return None
        except av.FFmpegError as error:
            fault = reading_fault(error, self._input.name, self._options.stall_s)
        raise fault  # outside, so that FFmpeg's message, which may hold a password, is no part of it


def _open(source: Input, options: SourceOptions) -> InputContainer:
    fault = None
    # On a stall FFmpeg first gives out its parser's last picture, seconds old, so its reader gives up first.
    timeouts = None if source.is_file else (options.open_timeout_s, options.stall_s + 1)
    started = time.monotonic()
    try:
        return av.open(
            source.address,
            format=source.format,
            options=source.settings,
            timeout=timeouts,
            metadata_errors="replace",
            hwaccel=_hwaccel(options),
        )
    except (av.FFmpegError, RuntimeError) as error:  # RuntimeError: nothing in it that the hardware decodes
        if options.hwaccel != "none":
            _check_hwaccel(options, source.name)
        if not isinstance(error, av.FFmpegError):
            raise DeviceUnavailable(
                f"{source.name}: {options.hwaccel} decodes nothing in it; use hwaccel: none"
            ) from None
        # RTSP reports its timeout as bad data, so the time it took tells.
        timed_out = timeouts is not None and time.monotonic() - started >= options.open_timeout_s
        fault = opening_fault(error, source.name, options.open_timeout_s, timed_out)
    raise fault


def _hwaccel(options: SourceOptions) -> HWAccel | None:
    return None if options.hwaccel == "none" else HWAccel(options.hwaccel, allow_software_fallback=False)


def _check_hwaccel(options: SourceOptions, name: str) -> None:
    """Raise DeviceUnavailable if the hardware that is to decode is not there."""
    try:
        CodecContext.create("h264", "r", hwaccel=_hwaccel(options))
    except (av.FFmpegError, RuntimeError):
        raise DeviceUnavailable(
            f"{name}: hwaccel: {options.hwaccel} was asked for and does not work here; install the NVIDIA "
            "driver with its video libraries (libnvcuvid), or use hwaccel: none"
        ) from None


def _video_stream(container: InputContainer, source: Input) -> VideoStream:
    """The first real video stream, with its decoder set up.

    One thread decodes at the least cost a picture; frame threads cost a tenth more, and pictures of
    delay, so they are for files whose pictures are too large for one core.
    """
    unknown = False
    for stream in container.streams.video:
        if stream.disposition & Disposition.attached_pic:
            continue  # cover art
        codec = stream.codec_context
        if codec is None:  # PyAV's word for it, whatever its stubs say
            unknown = True
            continue
        if codec.name in _TEXT_CODECS:
            continue
        if source.is_file and not codec.width:
            continue
        if source.is_file and codec.width * codec.height > _MOST_PIXELS_FOR_ONE_CORE:
            stream.thread_type = "AUTO"
        else:
            stream.thread_type = "SLICE"
        if source.sender_paces:
            codec.flags |= Flags.low_delay
        return stream
    if unknown:
        raise CodecUnsupported(
            f"{source.name}: its video is of a kind that the FFmpeg library in use cannot decode; set the camera "
            "to H.264, H.265 or MJPEG"
        )
    kinds = {stream.type for stream in container.streams} - {"video"}
    found = f"; there is only {', '.join(sorted(kinds))}" if kinds else ""
    raise NoVideo(
        f"{source.name}: no video that can be decoded in it{found}; expected a video file or stream"
    )


def _info(stream: VideoStream, options: SourceOptions, live: bool) -> SourceInfo:
    codec = stream.codec_context
    rate = stream.average_rate or stream.guessed_rate
    known = rate is not None and _LEAST_RATE <= rate <= _MOST_RATE
    return SourceInfo(
        width=codec.width,
        height=codec.height,
        codec=codec.name,
        frame_rate=float(rate) if rate is not None and known else None,
        live=live,
        backend="pyav" if options.hwaccel == "none" else f"pyav with {options.hwaccel}",
    )
