"""Collecting pictures worth annotating: from a real clip by the real command, and the rules by hand."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from av import VideoFrame

from stream.cli import main
from stream.collect import Bounds, Collection, Worth, collect, doubts, thumbnail
from stream.errors import UsageError
from stream.frames import Detections, Frame, Tracks
from stream.tracking import Tracker


def picture(seed: int, noise: float = 0.0) -> VideoFrame:
    """Coarse blocks of grey that ``seed`` decides, with a little noise over them."""
    blocks = np.random.default_rng(seed).integers(0, 255, (9, 16)).astype(np.float32)
    grey = cv2.resize(blocks, (320, 180), interpolation=cv2.INTER_NEAREST)
    grey = np.clip(grey + np.random.default_rng(99).normal(0, noise, grey.shape), 0, 255).astype(np.uint8)
    return VideoFrame.from_ndarray(np.repeat(grey[:, :, None], 3, 2), format="bgr24").reformat(
        format="yuv420p"
    )


def offered(collection: Collection, seed: int, worth: float, noise: float = 0.0) -> bool:
    shown = picture(seed, noise)
    return collection.offer(shown, 0.0, Worth(worth, 0, 0), thumbnail(Frame(shown, 0, 0.0, 0.0)))


def test_a_real_clip(bikes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "shots"
    command = ["collect", str(bikes), "--out", str(out), "--count", "3", "--every", "1"]
    assert main(command) == 0
    assert "3 pictures in" in capsys.readouterr().err
    with (out / "collected.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {path.name for path in out.glob("*.jpg")} == {row["file"] for row in rows}
    assert len(rows) == 3
    for row in rows:
        assert all(0 <= float(row[name]) <= 1 for name in ("unsure", "broken", "new"))
        assert cv2.imread(str(out / row["file"])).shape == (272, 640, 3)
    times = sorted(float(row["time_s"]) for row in rows)
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(times))
    assert main(command) == 0, "a later run goes on"
    assert len(list(out.glob("*.jpg"))) == 3


def test_it_is_bounded_and_the_better_replaces_the_worst(tmp_path: Path) -> None:
    collection = Collection(tmp_path, Bounds(count=3))
    assert [offered(collection, seed, worth) for seed, worth in enumerate((0.5, 0.2, 0.9))] == [True] * 3
    assert not offered(collection, 3, 0.1)
    assert offered(collection, 4, 0.6)
    assert sorted(kept.worth.total for kept in collection.kept) == [0.5, 0.6, 0.9]
    assert len(list(tmp_path.glob("*.jpg"))) == 3


def test_of_pictures_that_show_the_same_the_better_is_kept(tmp_path: Path) -> None:
    collection = Collection(tmp_path, Bounds(count=9))
    assert offered(collection, 0, 0.5)
    assert not offered(collection, 0, 0.4, noise=3.0)
    assert offered(collection, 0, 0.7, noise=3.0)
    assert [kept.worth.total for kept in collection.kept] == [0.7]
    again = Collection(tmp_path, Bounds(count=9))
    assert [kept.worth.total for kept in again.kept] == [0.7]
    assert not offered(again, 0, 0.6), "what an earlier run kept is known"
    assert offered(again, 1, 0.1)


def test_newness_grows_with_the_difference(tmp_path: Path) -> None:
    collection = Collection(tmp_path, Bounds())
    seen = thumbnail(Frame(picture(0), 0, 0.0, 0.0))
    assert collection.newness(seen) == 1.0
    offered(collection, 0, 0.5)
    assert collection.newness(seen) < 0.01
    assert collection.newness(seen + 15) == pytest.approx(0.5, abs=0.01)
    assert collection.newness(thumbnail(Frame(picture(1), 0, 0.0, 0.0))) == 1.0


def test_doubts_by_hand() -> None:
    scores = np.array([0.2, 0.5, 0.6, 0.9], np.float32)
    detections = Detections(np.zeros((4, 4), np.float32), scores, np.zeros(4, np.int64))
    empty = Tracks.empty()
    assert doubts(detections, empty) == (2 / 3, 0.0)
    assert doubts(Detections.empty(), empty) == (0.0, 0.0)


class Clip:
    """Pictures of a camera at so many a second, and a detector that is asked of each but finds nothing."""

    def __init__(self, fps: float, seconds: float) -> None:
        self.asked = 0
        self._frames = self._read(fps, seconds)

    def _read(self, fps: float, seconds: float) -> Iterator[Frame]:
        for index in range(int(fps * seconds)):
            yield Frame(picture(index), index, index / fps, 0.0)

    def read(self) -> Frame | None:
        return next(self._frames, None)

    def detect(self, pictures: object, score_threshold: float) -> list[Detections]:
        self.asked += 1
        return [Detections.empty()]


@pytest.mark.parametrize("fps", [1, 10, 25])
def test_two_a_second_are_looked_at_and_one_of_every_few_seconds_is_kept(tmp_path: Path, fps: float) -> None:
    clip = Clip(fps, 8)
    looked, kept = collect(clip, clip, Tracker(), Collection(tmp_path, Bounds(every_s=2.0)))
    assert looked == clip.asked == (8 if fps == 1 else 16)
    assert kept == 4
    clip = Clip(fps, 8)
    assert collect(clip, clip, Tracker(), Collection(tmp_path, Bounds()), seconds=3)[0] <= 8


def test_what_cannot_be_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be a folder of collected pictures"):
        Collection(tmp_path / "file", Bounds())
    (tmp_path / "collected.csv").write_text("file,time_s\nx.jpg,soon\n")
    cv2.imwrite(str(tmp_path / "x.jpg"), np.zeros((18, 32), np.uint8))
    with pytest.raises(UsageError, match="cannot be a folder"):
        Collection(tmp_path, Bounds())
    assert main(["collect", "demo", "--out", str(tmp_path / "new"), "--count", "0"]) == 2
    assert "expected 1 to 10000 pictures" in capsys.readouterr().err
