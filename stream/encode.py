"""Pictures -> ``EncodedUnit``: encoded once and packetised once, for every viewer of a hub.

Low delay throughout: one picture in, one unit out, no B-pictures, no lookahead, keyframes only when
asked for, and a rate buffer that bounds what a keyframe may weigh. Knows nothing of viewers, RTP
headers or aiortc.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from statistics import median
from typing import Literal, Protocol, cast

import cv2
import numpy as np
from av import CodecContext, VideoCodecContext, VideoFrame
from av.codec.codec import UnknownCodecError
from av.error import FFmpegError
from av.video.frame import PictureType

from stream.cores import usable_cores
from stream.errors import DeviceUnavailable
from stream.planes import LIMITED_RANGE, blank_like, is_full_range, views
from stream.webrtc.payload import packetise_h264, packetise_vp8

Codec = Literal["h264", "vp8"]
H264Name = Literal["libx264", "h264_nvenc", "h264_v4l2m2m"]
"""What makes H.264, by FFmpeg's name."""

CLOCK_HZ = 90_000
NOMINAL_FRAME_RATE = 30.0
# Seconds of bit rate that one keyframe may take; x264 spends at most this at once.
RATE_BUFFER_S = 0.3
# Rate control counts pictures, not seconds, so it must know the rate; beyond this factor it is told anew.
RATE_TOLERANCE = 1.5
_LONG_GOP = 1 << 16  # pictures; keyframes come when they are asked for
# One picture in, one out, at once; a forced keyframe is an IDR; parameter sets come with each.
_HARDWARE: dict[str, dict[str, str]] = {
    "h264_nvenc": {
        "preset": "p2",
        "tune": "ull",
        "rc": "cbr",
        "zerolatency": "1",
        "delay": "0",
        "forced-idr": "1",
        "profile": "baseline",
    },
    "h264_v4l2m2m": {},
}
_REMEDIES = {
    "libx264": "install PyAV's own wheel",
    "h264_nvenc": "install the NVIDIA driver (570 or later) on a machine with NVENC",
    "h264_v4l2m2m": "run on a machine whose kernel has a V4L2 encoder, such as a Raspberry Pi up to 4",
}
LARGEST_SIDE = 16382  # even, and the most that both libx264 (16384) and libvpx (16383) take
MOST_PIXELS_A_THREAD = 1920 * 1088
MOST_THREADS = 4
_RATE_SPAN = 16


@dataclass(frozen=True, slots=True)
class EncodedUnit:
    """One encoded picture, ready to be sent to any number of viewers."""

    payloads: tuple[bytes, ...]  # RTP payloads in order
    timestamp: int  # 90 kHz, of the picture's stream time; wraps only in the RTP header
    keyframe: bool  # decodable without anything before it
    captured_at: float  # time.monotonic() when the picture left the decoder
    size: int  # bytes of all payloads
    repeat: bool = False  # an old picture sent again, with a timestamp later than its capture
    record: bytes = b""  # its tracks (``stream/webrtc/sei.py``), where they are not drawn on it


class Encoder(Protocol):
    """What a hub needs of an encoder. ``frame_rate`` is what rate control was last told.

    ``bitrate``, in bits a second, may be changed; it counts from the next change of size or rate on.
    """

    bitrate: int
    frame_rate: float

    def encode(
        self,
        picture: VideoFrame,
        timestamp: int,
        force_keyframe: bool,
        captured_at: float,
        sei: bytes = b"",
    ) -> EncodedUnit: ...


class _LibavEncoder:
    """What both codecs share: (re)opening, rate measuring, feeding one picture at a time."""

    def __init__(self, bitrate: int, frame_rate: float = NOMINAL_FRAME_RATE) -> None:
        self.bitrate = bitrate
        self.frame_rate = frame_rate
        self._context: VideoCodecContext | None = None
        self._shape: tuple[int, ...] = ()
        self._last_timestamp: int | None = None
        self._intervals: deque[int] = deque(maxlen=_RATE_SPAN)

    def encode(
        self,
        picture: VideoFrame,
        timestamp: int,
        force_keyframe: bool,
        captured_at: float,
        sei: bytes = b"",
    ) -> EncodedUnit:
        """Encode one picture.

        Args:
            picture: 4:2:0, any size and range; its pts and picture type are overwritten. An odd last
                column or row is cropped, full range becomes limited range.
            timestamp: 90 kHz, greater than the last one.
            force_keyframe: make it decodable by itself. So is the first, and the first of a new size.
            captured_at: monotonic seconds, handed through.
            sei: a NAL unit that goes along in the picture's access unit; H.264 only.

        Raises:
            DeviceUnavailable: this build of FFmpeg lacks the encoder, or it refuses the size.
        """
        if min(picture.width, picture.height) < 2:
            raise self._refusal(picture, "no even size fits into it")
        picture = encodable(picture)
        self._measure(timestamp)
        shape = (
            picture.width,
            picture.height,
            picture.colorspace,
            picture.color_primaries,
            picture.color_trc,
        )
        if self._context is None or shape != self._shape or self._is_off_rate():
            self._context, self._shape = self._opened(picture), shape
        picture.pts = timestamp
        picture.time_base = Fraction(1, CLOCK_HZ)
        # A decoder leaves its own type here, and the encoder would obey it.
        picture.pict_type = PictureType.I if force_keyframe else PictureType.NONE
        packets = self._context.encode(picture)
        if len(packets) != 1:
            raise RuntimeError(
                f"{self._context.name} gave {len(packets)} packets for one picture, expected 1"
            )
        payloads = self._packetised(bytes(packets[0]), sei)
        size = sum(map(len, payloads))
        return EncodedUnit(payloads, timestamp, packets[0].is_keyframe, captured_at, size)

    def _opened(self, picture: VideoFrame) -> VideoCodecContext:
        try:
            context = self._configured(picture.width, picture.height)
            context.width, context.height, context.pix_fmt = picture.width, picture.height, "yuv420p"
            context.time_base = Fraction(1, CLOCK_HZ)
            context.framerate = Fraction(self.frame_rate).limit_denominator(1001)
            context.bit_rate = self.bitrate
            context.max_b_frames = 0
            context.color_range = LIMITED_RANGE
            context.colorspace = picture.colorspace
            context.color_primaries = picture.color_primaries
            context.color_trc = picture.color_trc
            context.open()
        except UnknownCodecError as error:
            raise self._refusal(picture, "this FFmpeg does not have it") from error
        except FFmpegError as error:
            raise self._refusal(picture, error.strerror or str(error)) from error
        return context

    def _refusal(self, picture: VideoFrame, reason: str) -> DeviceUnavailable:
        return DeviceUnavailable(
            f"cannot encode {picture.width}x{picture.height} with {type(self).__name__}: {reason}; expected "
            f"sides from 2 to {LARGEST_SIDE} pixels and a PyAV with libx264 and libvpx"
        )

    def _measure(self, timestamp: int) -> None:
        if self._last_timestamp is not None:
            self._intervals.append(max(1, timestamp - self._last_timestamp))
        self._last_timestamp = timestamp

    def _is_off_rate(self) -> bool:
        """True once the measured rate has left what rate control assumes; takes the new one over."""
        if len(self._intervals) < 4 or sum(self._intervals) < CLOCK_HZ:
            return False
        rate = min(max(CLOCK_HZ / median(self._intervals), 0.1), 240.0)
        if 1 / RATE_TOLERANCE < rate / self.frame_rate < RATE_TOLERANCE:
            return False
        self.frame_rate = rate
        self._intervals.clear()
        return True

    def _configured(self, width: int, height: int) -> VideoCodecContext:
        raise NotImplementedError

    def _packetised(self, data: bytes, sei: bytes) -> tuple[bytes, ...]:
        raise NotImplementedError


class H264Encoder(_LibavEncoder):
    """Constrained baseline: what every browser and player decodes. By x264, or by hardware."""

    def __init__(
        self, bitrate: int, frame_rate: float = NOMINAL_FRAME_RATE, name: H264Name = "libx264"
    ) -> None:
        super().__init__(bitrate, frame_rate)
        self._name = name

    def _configured(self, width: int, height: int) -> VideoCodecContext:
        if self._name != "libx264":
            return self._hardware()
        context = _context("libx264")
        context.profile = "Baseline"
        # Slices in several threads cost a tenth more, and cores that detection wants: for large pictures only.
        context.thread_count = min(-(-width * height // MOST_PIXELS_A_THREAD), MOST_THREADS, usable_cores())
        context.thread_type = "SLICE"
        context.options = {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "forced-idr": "1",
            "maxrate": str(self.bitrate),
            "bufsize": str(int(self.bitrate * RATE_BUFFER_S)),
            "x264-params": "keyint=infinite:scenecut=0:repeat-headers=1",
        }
        return context

    def _hardware(self) -> VideoCodecContext:
        context = _context(self._name)
        context.gop_size = _LONG_GOP
        context.options = {
            **_HARDWARE[self._name],
            "maxrate": str(self.bitrate),
            "bufsize": str(int(self.bitrate * RATE_BUFFER_S)),
        }
        return context

    def _packetised(self, data: bytes, sei: bytes) -> tuple[bytes, ...]:
        return packetise_h264(data, sei)


class VP8Encoder(_LibavEncoder):
    """libvpx in real time, for viewers without H.264 (an offline Firefox)."""

    _picture_id = 0

    def _configured(self, width: int, height: int) -> VideoCodecContext:
        context = _context("libvpx")
        context.thread_count = 1  # libvpx's threads wait by spinning: two cost eight times one
        context.gop_size = 1 << 30
        context.qmin, context.qmax = 2, 63
        # libvpx bounds a keyframe in percent of the mean picture.
        largest_keyframe = int(100 * RATE_BUFFER_S * self.frame_rate)
        context.options = {
            "deadline": "realtime",
            "cpu-used": "-8",  # a fixed speed; a positive one hunts for a share of the CPU
            "lag-in-frames": "0",
            "error-resilient": "1",
            "static-thresh": "1",
            "undershoot-pct": "100",
            "overshoot-pct": "15",
            "maxrate": str(self.bitrate),
            "bufsize": str(int(self.bitrate * RATE_BUFFER_S)),
            "max-intra-rate": str(max(100, largest_keyframe)),
        }
        return context

    def _packetised(self, data: bytes, sei: bytes) -> tuple[bytes, ...]:
        if sei:
            raise ValueError("VP8 has no place for an SEI message; expected none")
        self._picture_id += 1
        return packetise_vp8(data, self._picture_id)


def make_encoder(
    codec: Codec, bitrate: int, frame_rate: float = NOMINAL_FRAME_RATE, h264: H264Name = "libx264"
) -> Encoder:
    """The encoder for ``codec`` at ``bitrate`` bits a second; ``frame_rate`` is a first guess."""
    return H264Encoder(bitrate, frame_rate, h264) if codec == "h264" else VP8Encoder(bitrate, frame_rate)


def check_h264(name: H264Name) -> None:
    """Encode one picture with it.

    Raises:
        DeviceUnavailable: it does not work here; says the remedy.
    """
    picture = VideoFrame(640, 480, "yuv420p")
    for plane, level in zip(views(picture), (16, 128, 128), strict=True):
        plane[:] = level
    try:
        H264Encoder(1_000_000, name=name).encode(picture, 0, True, 0.0)
    except (DeviceUnavailable, RuntimeError) as error:
        cause = error.__cause__
        reason = f"FFmpeg cannot open it here ({cause.strerror})" if isinstance(cause, FFmpegError) else error
        raise DeviceUnavailable(
            f"encoder.h264: {name} was asked for, but {reason}; {_REMEDIES[name]}, or use libx264"
        ) from error


def encodable(picture: VideoFrame) -> VideoFrame:
    """``picture`` as limited-range yuv420p of even size; itself where it already is that.

    An odd last column or row is cropped (4:2:0 cannot carry it, and scaling would blur all the rest).
    """
    if picture.format.name not in ("yuv420p", "yuvj420p"):
        picture = picture.reformat(format="yuv420p", dst_color_range=LIMITED_RANGE)
    elif is_full_range(picture):
        picture = _limited(picture)
    if picture.width % 2 == 0 and picture.height % 2 == 0:
        return picture
    even = blank_like(picture, picture.width & ~1, picture.height & ~1)
    for target, source in zip(views(even), views(picture), strict=True):
        target[:] = source[: target.shape[0], : target.shape[1]]
    return even


def _limited(picture: VideoFrame) -> VideoFrame:
    limited = blank_like(picture, picture.width, picture.height)
    limited.color_range = LIMITED_RANGE
    levels = (_LIMIT_LUMA, _LIMIT_CHROMA, _LIMIT_CHROMA)
    for target, source, table in zip(views(limited), views(picture), levels, strict=True):
        cv2.LUT(source, table, target)
    return limited


def _context(name: str) -> VideoCodecContext:
    return cast(VideoCodecContext, CodecContext.create(name, "w"))


# ITU-R BT.601 and BT.709 agree on this: 219 steps of luma from 16, 224 of chroma around 128.
_LEVELS = np.arange(256, dtype=np.float64)
_LIMIT_LUMA = np.round(16 + _LEVELS * 219 / 255).astype(np.uint8)
_LIMIT_CHROMA = np.round(128 + (_LEVELS - 128) * 224 / 255).astype(np.uint8)
