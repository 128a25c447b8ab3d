"""Beginning in the middle of a file, at the very picture, whatever its container.

Containers seek to keyframes, some of them to near one, and each by its own idea of time; so the seek
goes to a keyframe at or before the picture, and what is decoded on the way is dropped. Knows nothing of
playing: it works on what ``pyav.py`` has opened.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from stream.errors import SourceBroken

_FIRST_STEP_BACK_S = 1.0
_ROUNDED_S = 0.5e-3


def half_a_frame_s(rate: float | Fraction | None) -> float:
    """How much before a moment a picture may lie and still be the one that is meant; where the rate is not
    known, no more than a rounded time."""
    return 0.5 / float(rate) if rate else _ROUNDED_S


def begin_at(container: InputContainer, stream: VideoStream, start_s: float, name: str) -> float:
    """Seek in a file that was just opened.

    Args:
        container: from which nothing was read yet.
        stream: its video.
        start_s: seconds after the first picture of the file.
        name: of the file in messages.

    Returns:
        The stream's own time, seconds, from which on its pictures count; earlier ones are to be dropped.

    Raises:
        SourceBroken: there is no way to seek in it.
    """
    try:
        begin_s, first_s = _beginning(container, stream)
        if first_s is not None:
            _seek_before(container, stream, begin_s, first_s + start_s)
            return first_s + start_s - half_a_frame_s(stream.average_rate or stream.guessed_rate)
        fault = "its pictures have no times"
    except av.FFmpegError as error:
        fault = error.strerror or "it cannot be read"
    raise SourceBroken(
        f"{name}: cannot begin at {start_s:g} s ({fault}); expected a file in which one can seek, such as MP4 or "
        "MKV: convert it, or begin at 0"
    )


def _beginning(container: InputContainer, stream: VideoStream) -> tuple[float, float | None]:
    """The least time of a packet, and the time of the first picture; containers' own start times are often
    another."""
    begin_s: float | None = None
    for packet in container.demux(stream):
        stamp = packet.pts if packet.dts is None else packet.dts
        if begin_s is None and stamp is not None:
            begin_s = float(stamp * packet.time_base)
        try:
            pictures = packet.decode()
        except av.FFmpegError:
            continue  # it is counted when it is played
        if pictures:
            return begin_s or 0.0, pictures[0].time
    return 0.0, None


def _seek_before(container: InputContainer, stream: VideoStream, begin_s: float, wanted_s: float) -> None:
    """Seek so that the next keyframe is not after ``wanted_s``, in steps back that double."""
    assert stream.time_base is not None
    back_s = 0.0
    while True:
        target = round(max(wanted_s - back_s, begin_s) / stream.time_base)
        container.seek(target, stream=stream, backward=True)
        keyframe = next((packet for packet in container.demux(stream) if packet.is_keyframe), None)
        stamp = None if keyframe is None else keyframe.dts if keyframe.pts is None else keyframe.pts
        found = stamp is not None and stamp * stream.time_base <= wanted_s
        if found or wanted_s - back_s <= begin_s:
            break
        back_s = 2 * back_s + _FIRST_STEP_BACK_S
    container.seek(target, stream=stream, backward=True)


def position(path: Path, stamp: int) -> tuple[int, float]:
    """Where in a file a picture is: its number from 0, and seconds after the first picture.

    Found by reading the whole file without decoding it, so that it is exact at any frame rate.

    Args:
        path: of the file.
        stamp: the picture's own timestamp (pts), in units of the stream's time base.

    Raises:
        av.FFmpegError: the file cannot be read.
    """
    first, before = stamp, 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            shown = packet.pts if packet.pts is not None else packet.dts
            if packet.size and shown is not None and not packet.is_discard and shown < stamp:
                first, before = min(first, shown), before + 1
        assert stream.time_base is not None
        return before, float((stamp - first) * stream.time_base)
