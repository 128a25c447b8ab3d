"""What is negotiated, between aiortc's public terms and ours. Opens nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aiortc import RTCRtpSender
from aiortc.codecs import is_rtx
from aiortc.rtcrtpparameters import (
    RTCRtcpFeedback,
    RTCRtpCodecCapability,
    RTCRtpCodecParameters,
    RTCRtpSendParameters,
)
from aiortc.sdp import H264Profile, parse_h264_profile_level_id

from stream.encode import CLOCK_HZ, Codec
from stream.h264 import Profile
from stream.webrtc.rtp import ABS_CAPTURE_TIME, ABS_SEND_TIME, MID, PLAYOUT_DELAY, RtpFormat

# What a decoder that is offered decodes, the preferred first. The last, all that a Chromium without hardware
# offers for high, contains it (H.264 A.2.7).
_DECODERS = {
    H264Profile.PROFILE_CONSTRAINED_BASELINE: Profile.BASELINE,
    H264Profile.PROFILE_BASELINE: Profile.BASELINE,
    H264Profile.PROFILE_MAIN: Profile.MAIN,
    H264Profile.PROFILE_HIGH: Profile.HIGH,
    H264Profile.PROFILE_CONSTRAINED_HIGH: Profile.HIGH,
    H264Profile.PROFILE_PREDICTIVE_HIGH_444: Profile.HIGH,
}
_FEEDBACK = (RTCRtcpFeedback("nack"), RTCRtcpFeedback("nack", "pli"), RTCRtcpFeedback("goog-remb"))


def preferences(codec: Codec) -> list[RTCRtpCodecCapability]:
    """``codec`` in every form we answer with, the preferred first, and retransmission."""
    ours = [c for c in RTCRtpSender.getCapabilities("video").codecs if c.mimeType.lower() == f"video/{codec}"]
    # x264 makes constrained baseline (42e0); a decoder of plain baseline takes it too.
    ours.sort(key=lambda c: not str(c.parameters.get("profile-level-id", "")).startswith("42e0"))
    return [*ours, RTCRtpCodecCapability("video/rtx", CLOCK_HZ)]


def decoding(video: Any, profile: Profile) -> list[RTCRtpCodecParameters]:
    """The H.264 in an offer's video section that decodes ``profile``, the preferred first, each with retransmission.

    aiortc's own answer knows baseline alone, and payload types from 96 on.
    """
    ranked = [(rank, each) for each in video.rtp.codecs if (rank := _rank(each)) and rank[0] >= profile]
    answer = []
    for _, each in sorted(ranked, key=lambda pair: pair[0]):
        answer.append(
            replace(each, rtcpFeedback=[known for known in each.rtcpFeedback if known in _FEEDBACK])
        )
        answer += [c for c in video.rtp.codecs if is_rtx(c) and c.parameters.get("apt") == each.payloadType][
            :1
        ]
    return answer


def _rank(codec: RTCRtpCodecParameters) -> tuple[Profile, int] | None:
    """The most that an offered H.264 decodes, and its place in our preference; None for what is no use to us."""
    given = codec.parameters
    if codec.mimeType.lower() != "video/h264":
        return None
    try:
        kind, _ = parse_h264_profile_level_id(str(given.get("profile-level-id", "42e01f")))
    except ValueError:
        return None
    usable = str(given.get("packetization-mode")) == "1" and kind in _DECODERS
    return (_DECODERS[kind], list(_DECODERS).index(kind)) if usable else None


def rtp_format(parameters: RTCRtpSendParameters, ssrc: int, rtx_ssrc: int) -> RtpFormat:
    codec = parameters.codecs[0]
    assert codec.payloadType is not None  # negotiated
    rtx = [c for c in parameters.codecs if is_rtx(c) and c.parameters.get("apt") == codec.payloadType]
    ids = {extension.uri: extension.id for extension in parameters.headerExtensions if 0 < extension.id < 15}
    return RtpFormat(
        ssrc=ssrc,
        payload_type=codec.payloadType,
        mid=parameters.muxId,
        rtx_ssrc=rtx_ssrc,
        rtx_payload_type=rtx[0].payloadType if rtx else None,
        mid_id=ids.get(MID) if 0 < len(parameters.muxId) <= 16 else None,
        abs_send_time_id=ids.get(ABS_SEND_TIME),
        playout_delay_id=ids.get(PLAYOUT_DELAY),
        abs_capture_time_id=ids.get(ABS_CAPTURE_TIME),
    )
