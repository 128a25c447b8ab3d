"""``lookout detect``: every frame of a source, in order and none left out, to rows and to video.

The same detector, tracker and annotator as live. Knows nothing of threads, pacing or viewers.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av import VideoFrame
from av.error import FFmpegError
from rich.console import Console

from stream import resume
from stream.config import CameraConfig, DetectorConfig
from stream.detector import Detector
from stream.errors import SourceBroken, UsageError, redact
from stream.frames import Detections, Frame, Tracks
from stream.progress import FrameProgress
from stream.sources import Source, SourceOptions, local_path, open_source
from stream.sources.images import RATE, is_pattern, is_pictures, picture_files
from stream.sources.seek import half_a_frame_s, position
from stream.tracking import Tracker, TrackerParameters, View
from stream.video_file import SegmentedVideo, annotated, annotated_in_segments
from stream.writers import Format, Writer, annotations_path, opened, partial_path

log = logging.getLogger(__name__)


class Detects(Protocol):
    """What is needed of a detector."""

    def detect(self, pictures: Sequence[VideoFrame], score_threshold: float) -> list[Detections]: ...


class Reads(Protocol):
    """What is needed of a source."""

    def read(self) -> Frame | None: ...


class Follows(Protocol):
    """What is needed of a tracker."""

    def update(self, detections: Detections, time_s: float, view: View | None = None) -> Tracks: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: Mapping[str, Any]) -> None: ...


class FrameWriter(Protocol):
    """What is needed of a video file."""

    def write(self, frame: Frame, tracks: Tracks) -> None: ...


class Untracked:
    """In a tracker's place where pictures have nothing to do with each other: every id is -1."""

    def update(self, detections: Detections, time_s: float, view: View | None = None) -> Tracks:
        count = len(detections)
        return Tracks(
            detections.boxes,
            detections.scores,
            detections.classes,
            ids=np.full(count, -1),
            ages_s=np.zeros(count, np.float32),
            coasting=np.zeros(count, np.bool_),
            names=detections.names,
        )

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """There is nothing to remember."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a run writes, and of which part of its source.

    Args:
        kind: of the rows.
        out: their file; None is standard output.
        video: an MP4 with the tracks drawn, None for none.
        end_s: stop before the picture that is shown so many seconds after the first one of the file.
        track: give boxes an identity over time; None does so in a video and not in pictures.
        resume: go on with a run that was cut short.
    """

    kind: Format = "jsonl"
    out: Path | None = None
    video: Path | None = None
    end_s: float | None = None
    track: bool | None = None
    resume: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did. ``boxes`` counts what was seen, not what was only expected; ``before`` are frames that a
    run had done from which this one went on."""

    frames: int
    boxes: int
    seconds: float
    before: int = 0

    def __str__(self) -> str:
        rate = (self.frames - self.before) / self.seconds if self.seconds > 0 else 0.0
        before = f", {self.before} of them before" if self.before else ""
        return (
            f"{self.frames} frames{before} in {self.seconds:.1f} s ({rate:.1f} a second), {self.boxes} boxes"
        )


def detect(
    camera: CameraConfig, detector: Detector, settings: DetectorConfig, outputs: Outputs | None = None
) -> Summary:
    """Run over ``camera.source`` from ``camera.start_s`` to its end and write what was seen.

    Rows have the number and time that their frame has in the file, wherever the run begins.

    Args:
        camera: where from; a file is read as fast as it can be worked on.
        detector: the model.
        settings: its score threshold.
        outputs: what to write; by default JSON lines on standard output.

    Raises:
        UsageError: an output cannot be written or would overwrite the source, or a run cannot be resumed.
        LookoutError: an output could be written to no longer, such as on a full disk.
        SourceError: the source cannot be opened or breaks; what was done by then is kept in
            ``NAME.partial.EXT``, as it is after Ctrl-C.
    """
    outputs = outputs or Outputs()
    _refuse_overwriting(camera.source, outputs.out, outputs.video)
    _refuse_nonsense(camera, outputs)
    path = local_path(camera.source)
    track = outputs.track if outputs.track is not None else path is None or not is_pictures(path)
    parameters = TrackerParameters.for_threshold(settings.score_threshold)
    tracker: Follows = Tracker(parameters) if track else Untracked()
    options = SourceOptions(
        transport=camera.transport, pace="lossless", stall_s=camera.stall_s, start_s=camera.start_s
    )
    with closing(open_source(camera.source, options)) as source:
        job = _Job(camera, detector, settings, outputs, path, tracker)
        part = Part(source, path, camera.start_s, outputs.end_s)
        threshold = parameters.low_score if track else settings.score_threshold
        summary = job.run(part, threshold, _expected(source, path, camera.start_s, outputs.end_s))
    Console(stderr=True, highlight=False).print(str(summary))
    return summary


class _Job:
    """One run with its outputs, its state kept beside them where it can be resumed: rows of a file to a file."""

    def __init__(
        self,
        camera: CameraConfig,
        detector: Detector,
        settings: DetectorConfig,
        outputs: Outputs,
        path: Path | None,
        tracker: Follows,
    ) -> None:
        self._outputs, self._detector, self._tracker = outputs, detector, tracker
        self._identity: dict[str, str] | None = None
        self._before: resume.Progress | None = None
        self._annotations: Path | None = None
        if outputs.out is None or path is None or _is_device(partial_path(outputs.out)):
            return
        self._annotations = annotations_path(outputs.out) if outputs.kind == "coco" else None
        choices = {
            "format": outputs.kind,
            "end": "that of the source" if outputs.end_s is None else f"{outputs.end_s:g} s",
            "tracking": "on" if isinstance(tracker, Tracker) else "off",
            "video": outputs.video or "none",
        }
        self._identity = resume.identity(path, camera, detector, settings, choices)
        if outputs.resume:
            self._before = resume.load(outputs.out, self._identity)
        if self._before is not None:
            try:
                tracker.restore(self._before.tracker)
            except (KeyError, TypeError, ValueError):
                raise resume.damaged(outputs.out) from None

    def run(self, part: Reads, score_threshold: float, expected_frames: int | None) -> Summary:
        before, outputs, names = self._before, self._outputs, self._detector.spec.names
        if before is not None:
            log.info("going on after %d frames; reading up to there", before.frames)
            _skip(part, before.frames)
        with ExitStack() as stack:
            saved_rows = before.rows if before else None
            write = stack.enter_context(
                opened(outputs.kind, outputs.out, names, saved_rows, self._annotations)
            )
            video: FrameWriter | None = None
            segments: SegmentedVideo | None = None
            if outputs.video is not None and self._identity is not None:
                saved = before.video if before else None
                video = segments = stack.enter_context(annotated_in_segments(outputs.video, saved))
            elif outputs.video is not None:
                video = stack.enter_context(annotated(outputs.video))
            checkpoint = self._checkpoint(write, segments)
            summary = run(
                part,
                self._detector,
                self._tracker,
                write=write,
                video_out=video,
                score_threshold=score_threshold,
                expected_frames=expected_frames,
                checkpoint=checkpoint,
                before=before,
            )
        if checkpoint is not None:
            checkpoint.remove()
        return summary

    def _checkpoint(self, write: Writer, video: SegmentedVideo | None) -> resume.Checkpoint | None:
        if self._identity is None or self._outputs.out is None:
            return None

        def progress(frames: int, boxes: int) -> resume.Progress | None:
            if video is not None and not video.is_whole:
                return None
            saved = None if video is None else video.saved()
            return resume.Progress(frames, boxes, write.saved(), self._tracker.state(), saved)

        return resume.Checkpoint(self._outputs.out, self._identity, progress)


def run(
    source: Reads,
    detector: Detects,
    tracker: Follows,
    *,
    write: Writer | None = None,
    video_out: FrameWriter | None = None,
    score_threshold: float | None = None,
    expected_frames: int | None = None,
    progress: bool = True,
    checkpoint: resume.Checkpoint | None = None,
    before: resume.Progress | None = None,
) -> Summary:
    """Decode, detect, track, write, frame by frame until the source ends.

    ``score_threshold`` is asked of the detector; None is the lowest that the tracker's defaults use.
    ``expected_frames`` is for the progress bar, which goes to standard error. ``before`` is what another run
    had done, whose frames the source no longer gives.
    """
    threshold = TrackerParameters().low_score if score_threshold is None else score_threshold
    begun, frames, boxes = time.monotonic(), 0, 0
    if before is not None:
        frames, boxes = before.frames, before.boxes
    with FrameProgress(expected_frames, frames, shown=progress) as bar:
        while True:
            if checkpoint is not None:
                checkpoint.done(frames, boxes)
            frame = source.read()
            if frame is None:
                break
            (detections,) = detector.detect([frame.picture], threshold)
            tracks = tracker.update(detections, frame.time_s, View.of(frame.picture))
            if write is not None:
                write.write(frame, tracks)
            if video_out is not None:
                video_out.write(frame, tracks)
            frames += 1
            boxes += len(tracks) - int(tracks.coasting.sum())
            bar.advance()
    return Summary(frames, boxes, time.monotonic() - begun, before.frames if before else 0)


class Part:
    """The frames of a source up to ``end_s``, with the numbers and times that they have in its file.

    A source that begins in the middle counts from 0, as its viewers want it.
    """

    def __init__(self, source: Source, path: Path | None, start_s: float, end_s: float | None) -> None:
        self._source, self._path, self._start_s = source, path, start_s
        self._last_s = None if end_s is None else end_s - half_a_frame_s(source.info.frame_rate)
        self._origin: tuple[int, float] | None = None

    def read(self) -> Frame | None:
        frame = self._source.read()
        if frame is None:
            return None
        if self._origin is None:
            self._origin = self._where(frame)
        index, time_s = self._origin
        frame = replace(frame, index=frame.index + index, time_s=frame.time_s + time_s)
        return None if self._last_s is not None and frame.time_s >= self._last_s else frame

    def _where(self, first: Frame) -> tuple[int, float]:
        if not self._start_s or self._path is None:
            return 0, 0.0
        if is_pictures(self._path):
            index = round(self._start_s * RATE)
            return index, index / RATE
        assert first.picture.pts is not None, "or it could not have been found"
        return position(self._path, first.picture.pts)


def _skip(part: Reads, frames: int) -> None:
    """Read what was done before. Decoding it all again is what makes sure that the next is the next."""
    for _ in range(frames):
        if part.read() is None:
            raise SourceBroken(f"the source has fewer than the {frames} frames that were done before")


def frame_count(source: str) -> int | None:
    """How many frames a file says it has; None where it does not say, or is no file."""
    path = local_path(source)
    if path is not None and is_pictures(path):
        return len(picture_files(path)[1])
    if path is None or not path.is_file():
        return None
    try:
        with av.open(str(path)) as container:
            return container.streams.video[0].frames or None
    except (FFmpegError, IndexError):
        return None


def _expected(source: Source, path: Path | None, start_s: float, end_s: float | None) -> int | None:
    """About how many frames a part of a file has, for who waits for them."""
    count, rate = None if path is None else frame_count(str(path)), source.info.frame_rate
    if count is None or (not start_s and end_s is None):
        return count
    if rate is None:
        return None
    last = count if end_s is None else min(count, round(end_s * rate))
    return max(last - round(start_s * rate), 0)


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file()


def _refuse_nonsense(camera: CameraConfig, outputs: Outputs) -> None:
    if outputs.end_s is not None and outputs.end_s <= camera.start_s:
        raise UsageError(f"--end {outputs.end_s:g}: expected seconds after the start, {camera.start_s:g}")
    if outputs.resume and outputs.out is None:
        raise UsageError("--resume goes on with a file: name it with --out")
    if outputs.resume and local_path(camera.source) is None:
        raise UsageError(f"{redact(camera.source)}: only a run over a file or pictures can be resumed")


def _refuse_overwriting(source: str, *outputs: Path | None) -> None:
    """Both names of an output count: it is written under the one and then takes the other."""
    written_to = [(path, partial_path(path)) for path in outputs if path is not None]
    origin = local_path(source)
    origins = [] if origin is None else [origin]
    if origin is not None and (origin.is_dir() or is_pattern(origin)):
        origins = picture_files(origin)[1]
    for paths in written_to:
        for path in paths:
            if any(_same_file(path, origin) for origin in origins):
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
