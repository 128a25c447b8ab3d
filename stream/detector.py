"""Pictures in, ``Detections`` out: letterbox, one run of the model for the whole batch, thresholds.

A video frame is shrunk as the YUV it is and then becomes RGB, by swscale, which honours the frame's
own matrix and range; a full-size RGB picture is never made. The rest, decoding and suppression
included, is in the model's graph. Knows nothing of cameras, families or tracking.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from copy import copy
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt
from av import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from export.artifact import PAD_VALUE, Letterbox, ModelSpec, load, read_spec
from stream.device import Device, Say, open_session
from stream.frames import Detections, Floats, Ints
from stream.histogram import BATCH_BOUNDS, RUN_BOUNDS_S, Histogram, merged
from stream.proposing import Proposing
from stream.regions import Regions, View

Pixels = npt.NDArray[np.uint8]

MOST_SHRINKERS = 32
"""One is kept for each picture size and format seen lately; setting one up costs as much as a frame."""


class Runs:
    """Of one detector, and so counted in one thread: seconds and pictures of each, and how many failed."""

    def __init__(self) -> None:
        self.seconds = Histogram(RUN_BOUNDS_S)
        self.pictures = Histogram(BATCH_BOUNDS)
        self.faults = 0

    @classmethod
    def summed(cls, all_runs: Iterable[Runs]) -> Runs:
        """Those of several detectors."""
        total, each = cls(), list(all_runs)
        total.seconds = merged((runs.seconds for runs in each), RUN_BOUNDS_S)
        total.pictures = merged((runs.pictures for runs in each), BATCH_BOUNDS)
        total.faults = sum(runs.faults for runs in each)
        return total


class Detector:
    """One model on one device; for use by one thread at a time.

    ``spec`` is that of the file where it is known already: reading it holds up every other thread, for 0.15 s of CPU
    where the file has 100 MB. Making onnxruntime's session does not.

    Attributes:
        path: the model file.
        spec: what the model says of itself.
        device: what the session really runs on: ``cpu``, ``cuda``, ``tensorrt`` or ``openvino``.
        reason: why that device.
        threads: CPU threads of one run.
        run_seconds: wall time spent inside ``session.run`` so far, proposing included.
        last_run_s: of the last run.
        runs: what its own runs were like.
        session: the warm session.
        last_images: uint8 (B, H, W, 3), what the last run was given; overwritten by the next.

    Raises:
        ArtifactError: not a contract file, or one that cannot run.
        DeviceUnavailable: a device was asked for that does not work here.
    """

    def __init__(
        self,
        path: str | Path,
        device: Device = "auto",
        threads: int | None = None,
        say: Say = lambda line: None,
        spec: ModelSpec | None = None,
    ) -> None:
        self.path = Path(path)
        self.spec = spec or read_spec(load(path), str(path))
        session = open_session(Path(path), self.spec, device, threads, say)
        self.device, self.reason, self.threads = session.device, session.reason, session.threads
        self.run_seconds = 0.0
        self.last_run_s = 0.0
        self.runs = Runs()
        self.session = session
        self._proposing = Proposing(self.spec)
        self._images = self.last_images = self._blank(1)
        self._shrinkers: OrderedDict[tuple[int, int, str], _Shrinker] = OrderedDict()

    def twin(self) -> Detector:
        """Another detector on the same session, with buffers of its own, for another thread."""
        twin = copy(self)
        twin.run_seconds = twin.last_run_s = 0.0
        twin.runs = Runs()
        twin.session = self.session.twin()
        twin._images = twin.last_images = twin._blank(1)
        twin._shrinkers = OrderedDict()
        return twin

    def detect(
        self,
        pictures: Sequence[VideoFrame],
        score_threshold: float,
        regions: Sequence[Regions | None] | None = None,
    ) -> list[Detections]:
        """Detect in decoded video frames of any sizes and pixel formats, as one batch.

        Args:
            pictures: read, never written to.
            score_threshold: detections below it are left out, 0 to 1.
            regions: for each picture the parts that the model is to see; None is the whole.

        Returns:
            One ``Detections`` a picture, best score first, boxes clipped to what the model saw of it.
        """
        images = self._batch(len(pictures))
        views = [
            View(picture) if part is None else part.view(picture)
            for picture, part in zip(pictures, regions or [None] * len(pictures), strict=True)
        ]
        letterboxes = [self._place(view, image) for view, image in zip(views, images, strict=True)]
        sizes = [(view.picture.width, view.picture.height) for view in views]
        found = self._run(images, letterboxes, sizes, score_threshold)
        return [each.shifted(view.left, view.top) for each, view in zip(found, views, strict=True)]

    def detect_images(self, images: Sequence[Pixels], score_threshold: float) -> list[Detections]:
        """As :meth:`detect`, for uint8 (height, width, 3) RGB pictures, by the letterbox of training."""
        batch = self._batch(len(images))
        sizes = [(image.shape[1], image.shape[0]) for image in images]
        letterboxes = [self.spec.place(width, height) for width, height in sizes]
        for slot, image, letterbox in zip(batch, images, letterboxes, strict=True):
            slot[:] = letterbox.apply(image)
        return self._run(batch, letterboxes, sizes, score_threshold)

    def _run(
        self,
        images: Pixels,
        letterboxes: list[Letterbox],
        sizes: list[tuple[int, int]],
        score_threshold: float,
    ) -> list[Detections]:
        if not len(images):
            return []
        self.last_images = images
        started = perf_counter()
        try:
            boxes, scores, classes = self.session.run(images, self._proposing.inside(images, letterboxes))
        except Exception:
            self.runs.faults += 1
            raise
        self.last_run_s = perf_counter() - started
        self.run_seconds += self.last_run_s
        self.runs.seconds.observe(self.last_run_s)
        self.runs.pictures.observe(len(images))
        return [
            _detections(
                boxes[row],
                scores[row],
                classes[row],
                self.spec.names,
                letterboxes[row],
                sizes[row],
                score_threshold,
            )
            for row in range(len(images))
        ]

    def _place(self, view: View, image: Pixels) -> Letterbox:
        """Draw what is to be seen of a frame, letterboxed, into one slot of the batch."""
        picture = view.picture
        letterbox = self.spec.place(picture.width, picture.height)
        width, height = letterbox.content_width, letterbox.content_height
        small = self._shrinker(picture).rgb(picture, width, height)
        plane = small.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)
        image[:height, :width] = rows[:, : 3 * width].reshape(height, width, 3)
        image[height:] = PAD_VALUE
        image[:, width:] = PAD_VALUE
        if view.regions is not None:
            view.regions.hide(view, image[:height, :width])
        return letterbox

    def _shrinker(self, picture: VideoFrame) -> _Shrinker:
        key = picture.width, picture.height, picture.format.name
        if key not in self._shrinkers:
            self._shrinkers[key] = _Shrinker()
            if len(self._shrinkers) > MOST_SHRINKERS:
                self._shrinkers.popitem(last=False)
        self._shrinkers.move_to_end(key)
        return self._shrinkers[key]

    def _batch(self, count: int) -> Pixels:
        if count > len(self._images):
            self._images = self._blank(count)
        return self._images[:count]

    def _blank(self, count: int) -> Pixels:
        return np.empty((count, self.spec.input_height, self.spec.input_width, 3), np.uint8)


class _Shrinker:
    """Scales pictures of one size and format, with swscale's tables for it kept."""

    def __init__(self) -> None:
        self._scale, self._convert = VideoReformatter(), VideoReformatter()

    def rgb(self, picture: VideoFrame, width: int, height: int) -> VideoFrame:
        """The picture as rgb24 of that size.

        Shrinking to YUV first and then converting takes half the time of swscale's one pass, and comes
        nearer to averaging full-size RGB (mean difference 0.33 instead of 0.80 at 1280x720).
        """
        if width < picture.width and height < picture.height:
            picture = self._scale.reformat(
                picture, width=width, height=height, interpolation=Interpolation.AREA, threads=1
            )
        return self._convert.reformat(
            picture,
            width=width,
            height=height,
            format="rgb24",
            interpolation=Interpolation.BILINEAR,
            threads=1,
        )


def _detections(
    boxes: Floats,
    scores: Floats,
    classes: Ints,
    names: tuple[str, ...],
    letterbox: Letterbox,
    size: tuple[int, int],
    score_threshold: float,
) -> Detections:
    """The rows (Q,) of one picture that count, in its own pixels.

    A box that lies outside the picture, in the padding, is no detection; nor is one that is not a number.
    """
    count = int(np.count_nonzero((scores > 0) & (scores >= score_threshold)))  # they are descending
    clipped = letterbox.to_source(boxes[:count])
    np.clip(clipped, 0, np.array([*size, *size], np.float32), out=clipped)
    inside = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    return Detections(clipped[inside], scores[:count][inside], classes[:count][inside], names)
