"""What is negotiated, between aiortc's public terms and ours. Opens nothing."""

from __future__ import annotations

from aiortc import RTCRtpSender
from aiortc.codecs import is_rtx
from aiortc.rtcrtpparameters import RTCRtpCodecCapability, RTCRtpSendParameters

from stream.encode import CLOCK_HZ, Codec
from stream.webrtc.rtp import ABS_CAPTURE_TIME, ABS_SEND_TIME, MID, PLAYOUT_DELAY, RtpFormat


def preferences(codec: Codec) -> list[RTCRtpCodecCapability]:
    """``codec`` in every form we answer with, the preferred first, and retransmission."""
    ours = [c for c in RTCRtpSender.getCapabilities("video").codecs if c.mimeType.lower() == f"video/{codec}"]
    # x264 makes constrained baseline (42e0); a decoder of plain baseline takes it too.
    ours.sort(key=lambda c: not str(c.parameters.get("profile-level-id", "")).startswith("42e0"))
    return [*ours, RTCRtpCodecCapability("video/rtx", CLOCK_HZ)]


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
