"""``Tap``: the compressed pictures of an H.264 stream, for who wants the camera's own instead of ours.

A packet is marked before it is decoded, and its mark comes out of the decoder with its picture. So an access
unit has its picture's very time, a file's go out when their pictures are due, and what cannot be
decoded goes nowhere; the price is the few milliseconds of decoding. Knows nothing of viewers.
"""

from __future__ import annotations

from typing import cast

from av import Packet, VideoFrame
from av.bitstream import BitStreamFilterContext
from av.codec.context import Flags
from av.video.frame import PictureType
from av.video.stream import VideoStream

from stream.frames import AccessUnit
from stream.h264 import IDR, SPS, Profile, is_annex_b, unit_types

_PROFILES = {
    "Baseline": Profile.BASELINE,
    "Constrained Baseline": Profile.BASELINE,
    "Main": Profile.MAIN,
    "High": Profile.HIGH,
    "Progressive High": Profile.HIGH,
    "Constrained High": Profile.HIGH,
}
B_PICTURES = "this camera's H.264 has B-frames, which no browser shows over WebRTC"
INTERLACED = "this camera's H.264 is interlaced, which no browser shows over WebRTC"


class Tap:
    """One opened stream's access units. Costs nothing until a packet is marked."""

    def __init__(self, stream: VideoStream) -> None:
        self._stream = stream
        self._refusal = B_PICTURES if stream.codec_context.has_b_frames else ""
        self._filter: BitStreamFilterContext | None = None
        stream.codec_context.flags |= Flags.copy_opaque

    @property
    def forwards(self) -> Profile | str:
        """The profile of what it gives, or in words why it gives nothing. Pictures seen may change it."""
        codec = self._stream.codec_context
        if codec.name != "h264":
            return not_h264(codec.name)
        return self._refusal or profile_named(codec.profile or "")

    def mark(self, packet: Packet[VideoStream]) -> None:
        """Have the picture that this packet will give carry the packet's access unit.

        Raises:
            av.FFmpegError: it is no H.264.
        """
        if not packet.size or isinstance(self.forwards, str):
            return
        if self._filter is None:
            self._filter = BitStreamFilterContext("h264_mp4toannexb", self._stream)
        # A copy: the filter takes its packet's data away, and the decoder wants the stream's own form.
        packet.opaque = self._whole(b"".join(map(bytes, self._filter.filter(Packet(bytes(packet))))))

    def unit(self, picture: VideoFrame, time_s: float, captured_at: float) -> AccessUnit | None:
        """The access unit of a picture; None if its packet was not marked, or cannot be passed on."""
        if picture.pict_type == PictureType.B:
            self._refusal = B_PICTURES
        elif picture.interlaced_frame:
            self._refusal = INTERLACED
        if picture.opaque is None or self._refusal:
            return None
        data, keyframe = cast(tuple[bytes, bool], picture.opaque)
        return AccessUnit(data, keyframe, picture.width, picture.height, time_s, captured_at)

    def _whole(self, data: bytes) -> tuple[bytes, bool]:
        """An access unit and whether it is an IDR picture; if so, its parameter sets go before it."""
        types = unit_types(data)
        header = self._stream.codec_context.extradata or b""
        if IDR in types and SPS not in types and is_annex_b(header):
            data = header + data  # RTSP tells them in its SDP alone
        return data, IDR in types


def profile_named(name: str) -> Profile | str:
    """The profile by its name in the standard, such as "Constrained Baseline"; in words, why it is none of ours."""
    profile = _PROFILES.get(name)
    return f"this camera's H.264 is {name}; expected Baseline, Main or High" if profile is None else profile


def not_h264(codec: str) -> str:
    return f"this camera's stream is {codec.upper()}, and only H.264 can be passed on"
