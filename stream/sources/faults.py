"""PyAV's and FFmpeg's errors, as lookout's own, and what to do where GStreamer is missing.

Only the error's kind and FFmpeg's fixed text for it are used: its file name and log may hold a
password. It knows nothing of how a source is opened.
"""

from __future__ import annotations

import errno

import av
import av.error

from stream.errors import (
    DeviceUnavailable,
    LookoutError,
    NoVideo,
    SourceBroken,
    SourceError,
    SourceNotFound,
    SourceTimeout,
    SourceUnauthorised,
    SourceUnreachable,
)

GSTREAMER_REMEDY = (
    "on Debian: apt install gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good "
    'gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav, and pip install "PyGObject<3.52"'
)

_UNREACHABLE = {
    errno.EIO,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.ENETDOWN,
    errno.EPROTO,
}
_NO_DEVICE = {errno.ENODEV, errno.ENXIO}


def opening_fault(error: av.FFmpegError, name: str, timeout_s: float, timed_out: bool) -> LookoutError:
    """What went wrong while opening the source ``name`` (already redacted)."""
    if timed_out or isinstance(error, (av.error.ExitError, av.error.TimeoutError)):
        return SourceTimeout(f"{name}: no answer within {timeout_s:g} s; check the address and the network")
    fault = _answer_fault(error, name) or _link_fault(error, name)
    return fault or SourceError(f"{name}: cannot be opened: {error.strerror}")


def reading_fault(error: av.FFmpegError, name: str, stall_s: float) -> SourceError:
    """What went wrong while the source ``name`` (already redacted) was playing."""
    if isinstance(error, (av.error.ExitError, av.error.TimeoutError)):
        return SourceTimeout(f"{name}: no picture for {stall_s:g} s; check the camera and its network")
    return SourceBroken(f"{name}: stopped while playing: {error.strerror}")


def _answer_fault(error: av.FFmpegError, name: str) -> LookoutError | None:
    """Someone answered, and the answer was no."""
    if isinstance(error, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)):
        return SourceUnauthorised(
            f"{name}: the server refuses these credentials; give them as rtsp://USER:PASSWORD@HOST/…, "
            "with special characters percent-encoded"
        )
    if isinstance(error, av.error.PermissionError):
        return SourceUnauthorised(f"{name}: permission denied; make it readable for this user")
    if (
        isinstance(error, (av.error.HTTPNotFoundError, av.error.FileNotFoundError))
        or error.errno in _NO_DEVICE
    ):
        return SourceNotFound(f"{name}: there is no such stream, file or device; check the path")
    if isinstance(error, (av.error.InvalidDataError, av.error.EOFError)):
        return NoVideo(f"{name}: this is not a video, or it is cut off; expected a video file or stream")
    if isinstance(error, av.error.HTTPOtherClientError) and name.startswith("rtsp"):
        return NoVideo(
            f"{name}: the server has no video that it will play this way; try another path, or the other "
            "transport (tcp, udp)"
        )
    if isinstance(error, (av.error.ProtocolNotFoundError, av.error.DemuxerNotFoundError)):
        return DeviceUnavailable(f"{name}: the FFmpeg library in use has no support for this kind of source")
    return None


def _link_fault(error: av.FFmpegError, name: str) -> SourceError | None:
    """Nobody answered."""
    if isinstance(error, av.error.ConnectionRefusedError):
        return SourceUnreachable(f"{name}: the connection was refused; check that it is on, and its port")
    if error.errno in _UNREACHABLE or isinstance(error, ConnectionError):
        return SourceUnreachable(f"{name}: unknown host or no way to it; check the address and the network")
    return None
