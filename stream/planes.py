"""The Y, U and V planes of a picture as arrays, and a copy of a picture that may be written to.

Knows nothing of what is drawn or encoded.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from av import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

Plane = npt.NDArray[np.uint8]
Planes = tuple[Plane, Plane, Plane]

_YUV420 = ("yuv420p", "yuvj420p")
LIMITED_RANGE, FULL_RANGE = 1, 2  # AVColorRange: MPEG (16-235) and JPEG (0-255)
_UNSPECIFIED = 2  # AVColorTransferCharacteristic and AVColorPrimaries
_BT470BG, _SMPTE170M = 5, 6  # AVColorSpace: two names of BT.601's matrix


def views(picture: VideoFrame) -> Planes:
    """The planes of a 4:2:0 picture as uint8 (height, width) over its own memory."""
    y, u, v = (
        np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in picture.planes
    )
    return y, u, v


def is_full_range(picture: VideoFrame) -> bool:
    """Whether luma spans 0-255, as its format or its tag says."""
    return picture.format.name == "yuvj420p" or picture.color_range == FULL_RANGE


def as_yuv420p(picture: VideoFrame) -> VideoFrame:
    """The picture itself where it is 4:2:0 in 8 bits already, else converted by swscale."""
    if picture.format.name in _YUV420:
        return picture
    converted = picture.reformat(format="yuv420p")
    converted.pts, converted.time_base = picture.pts, picture.time_base
    return converted


def settle_tags(picture: VideoFrame) -> None:
    """Bring the colour tags of a picture into the form in which swscale leaves them alone.

    PyAV's reformat rewrites them on its *source* while it scales without the GIL. Once threads share
    the picture, whoever reads them in that moment sees another picture kind and, say, opens its
    encoder anew. To be called before a picture is shared; matrix and range stay as they are.
    """
    picture.color_trc = _UNSPECIFIED
    picture.color_primaries = _UNSPECIFIED
    if picture.colorspace == _BT470BG:
        picture.colorspace = _SMPTE170M


def blank_like(picture: VideoFrame, width: int, height: int) -> VideoFrame:
    """A new yuv420p picture of that size with the colour description and time of ``picture``."""
    blank = VideoFrame(width, height, "yuv420p")
    blank.pts = picture.pts
    if picture.time_base is not None:
        blank.time_base = picture.time_base
    blank.colorspace, blank.color_primaries = picture.colorspace, picture.color_primaries
    blank.color_trc = picture.color_trc
    blank.color_range = FULL_RANGE if is_full_range(picture) else picture.color_range
    return blank


def writable(picture: VideoFrame) -> VideoFrame:
    """A yuv420p copy that is ours to write on, pixels and metadata; colours and time as they were."""
    if picture.format.name not in _YUV420:
        return picture.reformat(format="yuv420p")
    copy = blank_like(picture, picture.width, picture.height)
    for target, source in zip(views(copy), views(picture), strict=True):
        np.copyto(target, source)
    return copy


class Shrinker:
    """Makes pictures smaller; keeps swscale's tables for the last size and format. For one thread."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def shrunk(self, picture: VideoFrame, width: int, height: int) -> VideoFrame:
        """A 4:2:0 picture at that size, each pixel the mean of those it stands for; newly made."""
        smaller = self._reformatter.reformat(
            picture, width=width, height=height, interpolation=Interpolation.AREA, threads=1
        )
        smaller.pts = picture.pts
        if picture.time_base is not None:
            smaller.time_base = picture.time_base
        return smaller
