"""The annotated video as an MP4 file, in one go or in segments that survive a kill.

Knows nothing of detection, or of who resumes what.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av import Packet, VideoFrame
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.frame import PictureType
from av.video.stream import VideoStream

from stream.annotate import Annotator
from stream.encode import CLOCK_HZ, encodable
from stream.errors import DeviceUnavailable, LookoutError, UsageError
from stream.frames import Frame, Tracks
from stream.writers import completed, written

SEGMENT_FRAMES = 250
"""In a segment: x264's own longest distance between keyframes, so that segments cost no bits."""

_QUALITY = {"preset": "veryfast", "crf": "21"}

Shape = tuple[int, int, int, int, int, int]
"""Width, height, and the colours: range, matrix, primaries, transfer."""


class VideoFile:
    """An H.264 MP4 of annotated pictures, each shown at its own stream time.

    It has the size and colours of the first picture, or those of ``shape``; other sizes are scaled to it.
    Made by ``annotated``.
    """

    def __init__(self, path: Path, shape: Shape | None = None) -> None:
        self._path = path
        self._annotator = Annotator()
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._begun_s = 0.0
        self.shape = shape
        self.last_pts = -1  # of CLOCK_HZ, from the first picture on
        self._failed = False

    def write(self, frame: Frame, tracks: Tracks) -> None:
        """Add one picture.

        Raises:
            DeviceUnavailable: this FFmpeg cannot encode it.
            LookoutError: the disk does not take it.
        """
        picture = encodable(self._annotator.draw(frame.picture, tracks))
        if self._container is None or self._stream is None:
            self._container, self._stream = self._open(picture)
            self._begun_s = frame.time_s
        width, height = self._stream.width, self._stream.height
        if (picture.width, picture.height) != (width, height):
            picture = picture.reformat(width=width, height=height)
        self.last_pts = max(round((frame.time_s - self._begun_s) * CLOCK_HZ), self.last_pts + 1)
        picture.pts, picture.time_base = self.last_pts, Fraction(1, CLOCK_HZ)
        picture.pict_type = PictureType.NONE  # a decoder's own type would be obeyed
        self._mux(self._container, self._stream.encode(picture))

    def close(self) -> None:
        """Write what the encoder still holds, and the index. Nothing if there was no picture.

        Raises:
            LookoutError: the disk does not take it.
        """
        if self._container is None or self._stream is None:
            return
        with written(str(self._path)), closing(self._container):
            if not self._failed:
                self._mux(self._container, self._stream.encode(None))

    def _mux(self, container: OutputContainer, packets: list[Packet[VideoStream]]) -> None:
        """Never again once it failed: FFmpeg would write the header a second time, and crash."""
        with written(str(self._path)):
            self._failed = True
            container.mux(packets)
            self._failed = False

    def _open(self, picture: VideoFrame) -> tuple[OutputContainer, VideoStream]:
        self.shape = self.shape or _shape(picture)
        width, height, *colours = self.shape
        try:
            container = _mp4(self._path)
            stream = container.add_stream("libx264", rate=30, options=dict(_QUALITY))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            context = stream.codec_context
            context.time_base = Fraction(1, CLOCK_HZ)
            context.color_range, context.colorspace, context.color_primaries, context.color_trc = colours
            context.open()
        except (FFmpegError, OSError) as error:
            raise DeviceUnavailable(
                f"{self._path}: cannot write {width}x{height} H.264 there ({error.strerror}); "
                "expected a writable folder, a picture of 16x16 or more, and a PyAV with libx264"
            ) from error
        return container, stream


def _shape(picture: VideoFrame) -> Shape:
    return (
        picture.width,
        picture.height,
        int(picture.color_range),
        int(picture.colorspace),
        int(picture.color_primaries),
        int(picture.color_trc),
    )


def _mp4(path: Path) -> OutputContainer:
    return av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})


class SegmentedVideo:
    """The same as segments beside ``path``, each complete in itself, that become ``path`` in the end.

    Args:
        path: of the whole.
        saved: what ``saved`` said in the run that this one goes on from.

    Raises:
        UsageError: a segment of that run is gone.
    """

    def __init__(self, path: Path, saved: Mapping[str, Any] | None = None) -> None:
        self._path = path
        self._begun_s: float | None = saved["begun_s"] if saved else None
        self._shape: Shape | None = tuple(saved["shape"]) if saved and saved["shape"] else None
        self._starts: list[int] = list(saved["starts"]) if saved else []  # of the complete ones, of CLOCK_HZ
        self._next_pts: int = saved["next_pts"] if saved else 0
        self._segment: VideoFile | None = None
        self._start = self._frames = 0
        for number in range(len(self._starts)):
            if not self._file(number).is_file():
                raise UsageError(f"{self._file(number)}: is gone; run without --resume to begin anew")

    @property
    def is_whole(self) -> bool:
        """All that was written is in complete segments."""
        return self._segment is None

    def saved(self) -> dict[str, Any]:
        """What another run has to know to go on after the complete segments."""
        return {
            "begun_s": self._begun_s,
            "shape": self._shape,
            "starts": self._starts,
            "next_pts": self._next_pts,
        }

    def write(self, frame: Frame, tracks: Tracks) -> None:
        """Add one picture; raises as ``VideoFile.write`` does."""
        if self._begun_s is None:
            self._begun_s = frame.time_s
        if self._segment is None:
            self._segment = VideoFile(self._file(len(self._starts)), self._shape)
            self._frames = 0
            self._start = max(round((frame.time_s - self._begun_s) * CLOCK_HZ), self._next_pts)
        self._segment.write(frame, tracks)
        self._frames += 1
        if self._frames == SEGMENT_FRAMES:
            self._end_segment()

    def close(self) -> None:
        """Put the segments together, also those that are not full.

        Raises:
            LookoutError: the disk does not take it, or a segment is damaged.
        """
        if self._segment is not None:
            self._end_segment()
        if not self._starts:
            return
        try:
            with written(str(self._path)):
                _join([(self._file(number), start) for number, start in enumerate(self._starts)], self._path)
        except FFmpegError as error:
            raise LookoutError(
                f"{self._path}: its segments cannot be put together ({error.strerror}); run without --resume to "
                "begin anew"
            ) from error

    def remove_segments(self) -> None:
        for number in range(len(self._starts)):
            self._file(number).unlink(missing_ok=True)

    def _end_segment(self) -> None:
        assert self._segment is not None
        segment, self._segment = self._segment, None
        segment.close()
        path = self._file(len(self._starts))
        with written(str(path)), path.open("rb") as file:
            os.fsync(file.fileno())  # so that a power cut leaves what ``saved`` speaks of
        self._shape, self._next_pts = segment.shape, self._start + segment.last_pts + 1
        self._starts.append(self._start)

    def _file(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.stem}-{number + 1:04d}{self._path.suffix}")


def _join(segments: Sequence[tuple[Path, int]], path: Path) -> None:
    """One MP4 of several by copying their packets; each begins at its time, of ``CLOCK_HZ``."""
    copy: VideoStream | None = None
    last_dts = -(1 << 62)
    with _mp4(path) as out:
        for file, start in segments:
            with av.open(str(file)) as source:
                video = source.streams.video[0]
                copy = copy or out.add_stream_from_template(video)
                for packet in source.demux(video):
                    if packet.dts is None or packet.pts is None:  # the end
                        continue
                    later = int(Fraction(start, CLOCK_HZ) / packet.time_base)
                    last_dts = max(packet.dts + later, last_dts + 1)
                    packet.pts, packet.dts, packet.stream = packet.pts + later, last_dts, copy
                    out.mux(packet)


@contextmanager
def annotated(path: Path) -> Iterator[VideoFile]:
    """A ``VideoFile`` that appears as ``path`` once it is complete."""
    with completed(path) as partial:
        video = VideoFile(partial)
        try:
            yield video
        finally:
            video.close()


@contextmanager
def annotated_in_segments(path: Path, saved: Mapping[str, Any] | None = None) -> Iterator[SegmentedVideo]:
    """A ``SegmentedVideo`` that appears as ``path`` once it is complete; else its segments stay."""
    with completed(path) as partial:
        video = SegmentedVideo(partial, saved)
        try:
            yield video
        except BaseException:
            with suppress(LookoutError):  # what ended the run is what is to be told
                video.close()
            raise
        video.close()
    video.remove_segments()
