"""``lookout collect``: the pictures of a camera that are worth annotating, of all that it shows.

Worth much is a picture in which the detector is of two minds, in which an object is missing that should be there, or
that looks like none that was kept. The best of every few seconds is kept, up to a bound, then the better in place of
the worst. What is kept lies in a folder as JPEG, with ``collected.csv`` beside it; a later run goes on with it.

Knows nothing of training, labels or viewers.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from av import VideoFrame

from stream.errors import UsageError
from stream.frames import Detections, Frame, Tracks
from stream.offline import Detects, Follows, Reads
from stream.planes import is_full_range, views
from stream.tracking import View

LOOKS_PER_S = 2.0
"""Pictures detected a second; the others are only decoded."""
LOW_SCORE = 0.1
_THUMB = 32, 18
_ALIKE = 4.0
"""Mean difference of thumbnails, in levels of grey, below which two pictures show the same."""
_UNLIKE = 30.0
_ENOUGH = 3
_OPEN = 0.25, 0.75
_QUALITY = 95
_INDEX = "collected.csv"

Thumb = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Worth:
    """Of annotating a picture; each from 0 to 1."""

    unsure: float
    """Of how many detections it is open whether they are objects,"""
    broken: float
    """and how many tracked objects were expected and not seen; from three on, 1."""
    new: float
    """How unlike the pictures that were kept it is."""

    @property
    def total(self) -> float:
        return self.unsure + self.broken + self.new


class Kept(NamedTuple):
    """A picture in the folder."""

    name: str
    time_s: float
    worth: Worth
    thumb: Thumb


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept: at most so many pictures, and one from so many seconds."""

    count: int = 200
    every_s: float = 2.0


class Collection:
    """The folder."""

    def __init__(self, folder: Path, bounds: Bounds) -> None:
        """Begin, or go on with what is there.

        Raises:
            UsageError: it cannot be made or written to, or has an index that is none.
        """
        self.bounds = bounds
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.kept = list(_read(folder))
        except (OSError, KeyError, ValueError) as error:
            raise UsageError(f"--out {folder}: cannot be a folder of collected pictures ({error})") from error

    def newness(self, thumb: Thumb) -> float:
        """0 for what shows the same as a kept picture, 1 for what looks like none."""
        nearest = self._nearest(thumb)
        return 1.0 if nearest is None else min(1.0, nearest[1] / _UNLIKE)

    def offer(self, picture: VideoFrame, time_s: float, worth: Worth, thumb: Thumb) -> bool:
        """Keep the picture, if it is worth more than what it would replace; whether it was kept."""
        out: Kept | None = None
        nearest = self._nearest(thumb)
        if nearest is not None and nearest[1] < _ALIKE:
            out = nearest[0]
        elif len(self.kept) >= self.bounds.count:
            out = min(self.kept, key=lambda kept: kept.worth.total)
        if out is not None and out.worth.total >= worth.total:
            return False
        name = f"{time.time_ns() // 1_000_000}.jpg"
        _write(self._folder / name, picture)
        self.kept.append(Kept(name, time_s, worth, thumb))
        if out is not None:
            self.kept.remove(out)
        self._save()
        if out is not None:
            (self._folder / out.name).unlink(missing_ok=True)
        return True

    def _nearest(self, thumb: Thumb) -> tuple[Kept, float] | None:
        if not self.kept:
            return None
        distances = np.abs(np.stack([kept.thumb for kept in self.kept]) - thumb).mean((1, 2))
        best = int(distances.argmin())
        return self.kept[best], float(distances[best])

    def _save(self) -> None:
        file = self._folder / _INDEX
        partial = file.with_suffix(".partial")
        with partial.open("w", newline="", encoding="utf-8") as opened:
            writer = csv.writer(opened)
            writer.writerow(["file", "time_s", *(field.name for field in fields(Worth))])
            for kept in self.kept:
                figures = (f"{value:.3f}" for value in astuple(kept.worth))
                writer.writerow([kept.name, f"{kept.time_s:.3f}", *figures])
        os.replace(partial, file)


def collect(
    source: Reads,
    detector: Detects,
    tracker: Follows,
    collection: Collection,
    seconds: float | None = None,
) -> tuple[int, int]:
    """Look at a source until it ends, or for ``seconds`` of it.

    Returns:
        pictures looked at, and how often one was kept.
    """
    looked = kept = 0
    due_s, first_s, window_s = -np.inf, None, -np.inf
    best: tuple[VideoFrame, float, Worth, Thumb] | None = None
    while (frame := source.read()) is not None:
        first_s = frame.time_s if first_s is None else first_s
        if seconds is not None and frame.time_s - first_s > seconds:
            break
        if frame.time_s < due_s and due_s - frame.time_s < 1 / LOOKS_PER_S:  # else its clock has jumped back
            continue
        due_s = frame.time_s + 1 / LOOKS_PER_S
        if not 0 <= frame.time_s - window_s < collection.bounds.every_s:
            kept += best is not None and collection.offer(*best)
            best, window_s = None, frame.time_s
        (detections,) = detector.detect([frame.picture], LOW_SCORE)
        tracks = tracker.update(detections, frame.time_s, View.of(frame.picture))
        looked += 1
        thumb = thumbnail(frame)
        worth = Worth(*doubts(detections, tracks), collection.newness(thumb))
        if best is None or worth.total > best[2].total:
            best = frame.picture, frame.time_s, worth, thumb
    kept += best is not None and collection.offer(*best)
    return looked, kept


def doubts(detections: Detections, tracks: Tracks) -> tuple[float, float]:
    """``unsure`` and ``broken`` of a picture's worth."""
    low, high = _OPEN
    undecided = int(((detections.scores > low) & (detections.scores < high)).sum())
    return min(1.0, undecided / _ENOUGH), min(1.0, int(tracks.coasting.sum()) / _ENOUGH)


def thumbnail(frame: Frame) -> Thumb:
    """What the picture shows at a glance: float32 (18, 32), brightness of 0 to 255 without its mean."""
    scale = 1.0 if is_full_range(frame.picture) else 255 / 219
    return _glance(views(frame.picture)[0], scale)


def _glance(luma: npt.NDArray[Any], scale: float) -> Thumb:
    small = scale * cv2.resize(luma, _THUMB, interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(small - small.mean(), np.float32)


def _write(path: Path, picture: VideoFrame) -> None:
    encoded, jpeg = cv2.imencode(
        ".jpg", picture.to_ndarray(format="bgr24"), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    if encoded:
        path.write_bytes(jpeg.tobytes())


def _read(folder: Path) -> Iterable[Kept]:
    """What an earlier run kept, as far as it is still there."""
    index = folder / _INDEX
    if not index.exists():
        return
    with index.open(newline="", encoding="utf-8") as opened:
        for row in csv.DictReader(opened):
            grey = cv2.imread(str(folder / Path(row["file"]).name), cv2.IMREAD_GRAYSCALE)
            if grey is not None:
                worth = Worth(*(float(row[field.name]) for field in fields(Worth)))
                yield Kept(row["file"], float(row["time_s"]), worth, _glance(grey, 1.0))
