"""GStreamer's errors, as lookout's own, by their domain, code and the server's status.

GStreamer's texts are translated, and hold addresses with passwords in them: none is used. Where its code
only says that there is no connection, a look at the address says why. It knows nothing of pipelines.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from stream.errors import (
    CodecUnsupported,
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
from stream.sources.faults import GSTREAMER_REMEDY
from stream.sources.gstreamer_library import GLib, Gst

_PORTS = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443, "http": 80, "https": 443}
_PROBE_S = 1.0
_REFUSED_STATUS = (401, 403, 407)
_GONE_STATUS = (404, 410)

_Resource, _Stream = Gst.ResourceError, Gst.StreamError
_OPENING = (_Resource.OPEN_READ, _Resource.OPEN_WRITE, _Resource.OPEN_READ_WRITE)
_NO_VIDEO = (_Stream.TYPE_NOT_FOUND, _Stream.WRONG_TYPE, _Stream.DEMUX, _Stream.FORMAT)


def opening_fault(
    error: GLib.Error, details: Gst.Structure | None, name: str, address: str, by_source: bool
) -> LookoutError:
    """What went wrong before the first picture.

    Args:
        error: from a message on the bus.
        details: that message's, where the server's status is.
        name: the source for people, redacted.
        address: where it is, without credentials.
        by_source: the element that fetches says so, not one that takes its data apart.
    """
    return (
        _answer_fault(_status(details), name)
        or _resource_fault(error, name, address)
        or _stream_fault(error, name, address, by_source)
        or SourceError(f"{name}: cannot be opened")
    )


def unable_fault(error: GLib.Error, name: str) -> DeviceUnavailable | None:
    """What it means if urisourcebin itself, not what fetches for it, finds nothing: nobody takes the address."""
    if not error.matches(Gst.ResourceError.quark(), _Resource.NOT_FOUND):
        return None
    expected = "; it expects rtmp://HOST/APP/STREAM" if name.startswith("rtmp") else ""
    return DeviceUnavailable(f"{name}: GStreamer here cannot fetch from such an address{expected}")


def is_refusal(error: GLib.Error) -> bool:
    """Whether this is how an element says that the one after it would not take what it has."""
    return bool(error.matches(Gst.StreamError.quark(), _Stream.FAILED))


def reading_fault(error: GLib.Error, name: str) -> SourceError:
    """What went wrong while the source ``name`` (already redacted) was playing."""
    of_stream = error.matches(Gst.StreamError.quark(), _Stream.DECODE)
    what = "its pictures cannot be decoded any more" if of_stream else "the connection broke"
    return SourceBroken(f"{name}: stopped while playing: {what}")


def no_video_in(streams: Gst.StreamCollection, name: str) -> NoVideo | None:
    """What is wrong with a source of these streams; None if there is video among them."""
    kinds = [streams.get_stream(number).get_stream_type() for number in range(streams.get_size())]
    if not kinds or any(kind & (Gst.StreamType.VIDEO | Gst.StreamType.UNKNOWN) for kind in kinds):
        return None
    found = ", ".join(sorted({Gst.StreamType.get_name(kind) for kind in kinds}))
    return NoVideo(f"{name}: there is no video in it, only {found}; expected a video file or stream")


def unsupported(name: str, codec: str, tried: Sequence[str] = ()) -> CodecUnsupported:
    """No decoder gives a picture of it, ``tried`` being those that looked as if they would."""
    if tried:
        return CodecUnsupported(
            f"{name}: not one picture of its {codec} video comes out of {', '.join(tried)}"
        )
    return CodecUnsupported(f"{name}: no decoder here for its {codec} video; set the camera to H.264")


def _status(details: Gst.Structure | None) -> int:
    """The server's answer as RTSP and HTTP number them; 0 if it gave none."""
    for field in ("rtsp-status-code", "http-status-code"):
        if details is not None and details.has_field(field):
            return int(details.get_value(field))
    return 0


def _answer_fault(status: int, name: str) -> SourceError | None:
    """Someone answered, and the answer was no."""
    if status in _REFUSED_STATUS:
        return _unauthorised(name)
    if status in _GONE_STATUS:
        return _not_found(name)
    if 400 <= status < 500 and name.startswith("rtsp"):
        return _not_this_way(name)
    return SourceError(f"{name}: the server answers with status {status}") if status >= 400 else None


def _resource_fault(error: GLib.Error, name: str, address: str) -> SourceError | None:
    if error.domain != GLib.quark_to_string(Gst.ResourceError.quark()):
        return None
    if error.code == _Resource.NOT_AUTHORIZED:
        return _unauthorised(name)
    if error.code == _Resource.NOT_FOUND:
        return _not_found(name)
    if error.code == _Resource.BUSY:
        return SourceUnreachable(f"{name}: in use by another program; end that first")
    if error.code in _OPENING:
        return link_fault(name, address) or SourceUnreachable(
            f"{name}: unknown host or no way to it; check the address and the network"
        )
    if error.code in (_Resource.READ, _Resource.WRITE):
        return link_fault(name, address) or SourceTimeout(
            f"{name}: no answer; check the address and the network"
        )
    return None


def _stream_fault(error: GLib.Error, name: str, address: str, by_source: bool) -> LookoutError | None:
    if error.matches(Gst.CoreError.quark(), Gst.CoreError.MISSING_PLUGIN):
        if not by_source:
            return unsupported(name, "kind of")
        return DeviceUnavailable(
            f"{name}: GStreamer here has no plugin for this kind of source; {GSTREAMER_REMEDY}"
        )
    if error.domain != GLib.quark_to_string(Gst.StreamError.quark()):
        return None
    if error.code == _Stream.CODEC_NOT_FOUND:
        return _not_this_way(name) if by_source else unsupported(name, "kind of")
    if error.code in _NO_VIDEO:
        return NoVideo(f"{name}: this is not a video, or it is cut off; expected a video file or stream")
    if error.code == _Stream.FAILED and by_source:  # how GStreamer's HTTP client says "no connection"
        return link_fault(name, address)
    return None


def link_fault(name: str, address: str) -> SourceUnreachable | None:
    """Why nobody can be reached at a TCP ``address``; None if somebody can, or it is no such address."""
    nowhere = SourceUnreachable(f"{name}: unknown host or no way to it; check the address and the network")
    try:
        parts = urlsplit(address)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:  # what stands there is no port, or no address
        return nowhere
    if port is None or not parts.hostname:
        return None
    try:
        socket.create_connection((parts.hostname, port), _PROBE_S).close()
    except ConnectionRefusedError:
        return SourceUnreachable(f"{name}: the connection was refused; check that it is on, and its port")
    except (OSError, UnicodeError):  # also socket.gaierror, and a host that is no name
        return nowhere
    return None


def _unauthorised(name: str) -> SourceUnauthorised:
    if name.startswith("/"):
        return SourceUnauthorised(f"{name}: permission denied; make it readable for this user")
    return SourceUnauthorised(
        f"{name}: the server refuses these credentials; give them as rtsp://USER:PASSWORD@HOST/…, "
        "with special characters percent-encoded"
    )


def _not_found(name: str) -> SourceNotFound:
    return SourceNotFound(f"{name}: there is no such stream, file or device; check the path")


def _not_this_way(name: str) -> NoVideo:
    return NoVideo(
        f"{name}: the server has no video that it will play this way; try another path, or the other "
        "transport (tcp, udp)"
    )
