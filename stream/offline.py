"""``lookout detect``: every frame of a source, in order and none left out, to rows and to video.

The same detector, tracker and annotator as live. Knows nothing of threads, pacing or viewers.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
from av import Packet, VideoFrame
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.frame import PictureType
from av.video.stream import VideoStream
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

from stream.annotate import Annotator
from stream.config import CameraConfig, DetectorConfig
from stream.detector import Detector
from stream.encode import CLOCK_HZ, encodable
from stream.errors import DeviceUnavailable, UsageError
from stream.frames import Detections, Frame, Tracks
from stream.sources import Source, SourceOptions, demo_clip, open_source
from stream.tracking import Tracker, TrackerParameters
from stream.writers import Format, Writer, completed, opened, partial_path, written

_QUALITY = {"preset": "veryfast", "crf": "21"}


class Detects(Protocol):
    """What is needed of a detector."""

    def detect(self, pictures: Sequence[VideoFrame], score_threshold: float) -> list[Detections]: ...


class FrameWriter(Protocol):
    """What is needed of a video file."""

    def write(self, frame: Frame, tracks: Tracks) -> None: ...


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did. ``boxes`` counts what was seen, not what was only expected."""

    frames: int
    boxes: int
    seconds: float

    def __str__(self) -> str:
        rate = self.frames / self.seconds if self.seconds > 0 else 0.0
        return f"{self.frames} frames in {self.seconds:.1f} s ({rate:.1f} a second), {self.boxes} boxes"


def detect(
    camera: CameraConfig,
    detector: Detector,
    settings: DetectorConfig,
    kind: Format,
    out: Path | None,
    video: Path | None,
) -> Summary:
    """Run over ``camera.source`` from its start to its end and write what was seen.

    Args:
        camera: where from; a file is read as fast as it can be worked on.
        detector: the model.
        settings: its score threshold.
        kind: of the rows.
        out: their file; None is standard output.
        video: an MP4 with the tracks drawn, None for none.

    Raises:
        UsageError: an output cannot be written or would overwrite the source.
        LookoutError: an output could be written to no longer, such as on a full disk.
        SourceError: the source cannot be opened or breaks; what was done by then is kept in
            ``NAME.partial.EXT``, as it is after Ctrl-C.
    """
    _refuse_overwriting(camera.source, out, video)
    options = SourceOptions(transport=camera.transport, pace="lossless", stall_s=camera.stall_s)
    parameters = TrackerParameters.for_threshold(settings.score_threshold)
    names = detector.spec.names
    with closing(open_source(camera.source, options)) as source, ExitStack() as outputs:
        summary = run(
            source,
            detector,
            Tracker(parameters),
            write=outputs.enter_context(opened(kind, out, names)),
            video_out=outputs.enter_context(annotated(video, names)) if video else None,
            score_threshold=parameters.low_score,
            expected_frames=frame_count(camera.source),
        )
    Console(stderr=True, highlight=False).print(str(summary))
    return summary


def run(
    source: Source,
    detector: Detects,
    tracker: Tracker,
    *,
    write: Writer | None = None,
    video_out: FrameWriter | None = None,
    score_threshold: float | None = None,
    expected_frames: int | None = None,
    progress: bool = True,
) -> Summary:
    """Decode, detect, track, write, frame by frame until the source ends.

    ``score_threshold`` is asked of the detector; None is the lowest that the tracker's defaults use.
    ``expected_frames`` is for the progress bar, which goes to standard error.
    """
    threshold = TrackerParameters().low_score if score_threshold is None else score_threshold
    begun, frames, boxes = time.monotonic(), 0, 0
    with _progress(shown=progress) as bar:
        task = bar.add_task("", total=expected_frames)
        while (frame := source.read()) is not None:
            (detections,) = detector.detect([frame.picture], threshold)
            tracks = tracker.update(detections, frame.time_s)
            if write is not None:
                write.write(frame, tracks)
            if video_out is not None:
                video_out.write(frame, tracks)
            frames += 1
            boxes += len(tracks) - int(tracks.coasting.sum())
            bar.advance(task)
    return Summary(frames, boxes, time.monotonic() - begun)


def frame_count(source: str) -> int | None:
    """How many frames a file says it has; None where it does not say, or is no file."""
    path = demo_clip() if source == "demo" else Path(source).expanduser()
    if not path.is_file():
        return None
    try:
        with av.open(str(path)) as container:
            return container.streams.video[0].frames or None
    except (FFmpegError, IndexError):
        return None


class VideoFile:
    """An H.264 MP4 of annotated pictures, each shown at its own stream time.

    It has the size of the first picture; others are scaled to it. Made by ``annotated``.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._path = path
        self._annotator = Annotator(names)
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._begun_s = 0.0
        self._last_pts = -1
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
        self._last_pts = max(round((frame.time_s - self._begun_s) * CLOCK_HZ), self._last_pts + 1)
        picture.pts, picture.time_base = self._last_pts, Fraction(1, CLOCK_HZ)
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
        try:
            container = av.open(str(self._path), "w", format="mp4", options={"movflags": "+faststart"})
            stream = container.add_stream("libx264", rate=30, options=dict(_QUALITY))
            stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, "yuv420p"
            context = stream.codec_context
            context.time_base = Fraction(1, CLOCK_HZ)
            context.color_range = picture.color_range
            context.colorspace = picture.colorspace
            context.color_primaries, context.color_trc = picture.color_primaries, picture.color_trc
            context.open()
        except (FFmpegError, OSError) as error:
            raise DeviceUnavailable(
                f"{self._path}: cannot write {picture.width}x{picture.height} H.264 there ({error.strerror}); "
                "expected a writable folder, a picture of 16x16 or more, and a PyAV with libx264"
            ) from error
        return container, stream


@contextmanager
def annotated(path: Path, names: Sequence[str]) -> Iterator[VideoFile]:
    """A ``VideoFile`` that appears as ``path`` once it is complete."""
    with completed(path) as partial:
        video = VideoFile(partial, names)
        try:
            yield video
        finally:
            video.close()


def _refuse_overwriting(source: str, *outputs: Path | None) -> None:
    """Both names of an output count: it is written under the one and then takes the other."""
    written_to = [(path, partial_path(path)) for path in outputs if path is not None]
    origin = Path(source).expanduser()
    for paths in written_to:
        for path in paths:
            if _same_file(path, origin):
                raise UsageError(
                    f"{source}: the output would overwrite the source (it writes {path}); give it another name"
                )
    for one, other in itertools.combinations(written_to, 2):
        if any(_same_file(*pair) for pair in itertools.product(one, other)):
            raise UsageError(
                f"{one[0]}: --out and --video would write the same file; give them different names"
            )


def _same_file(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0.0:.1f} fps")


def _progress(shown: bool) -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal))
