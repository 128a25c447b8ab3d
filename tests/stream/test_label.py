"""Labelling by a teacher: real pictures by the real command, and the rules by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from models.coco import load_coco
from models.lineage.recall import overlap
from models.pseudo_labels import Boxes, Rules, settle
from stream.cli import main
from stream.detector import Detector
from stream.frames import Detections
from stream.label import Wishes, draw_sheets, label
from stream.sources.images import read_rgb

NAMES = ("person", "car", "truck", "van")


@pytest.fixture
def shots(bikes: Path, tmp_path: Path) -> Path:
    """Three frames of a real clip, and a file that is no picture."""
    folder = tmp_path / "shots"
    folder.mkdir()
    with av.open(str(bikes)) as clip:
        for index, frame in enumerate(clip.decode(video=0)):
            if index % 60 == 0 and index < 180:
                cv2.imwrite(str(folder / f"{index}.jpg"), frame.to_ndarray(format="bgr24"))
    (folder / "90.jpg").write_text("no picture")
    return folder


class Hand:
    """A teacher that sees the same in every picture."""

    def __init__(self, *rows: tuple[Sequence[float], float, str]) -> None:
        self._found = Detections(
            np.array([row[0] for row in rows], np.float32),
            np.array([row[1] for row in rows], np.float32),
            np.array([NAMES.index(row[2]) for row in rows], np.int64),
        )

    def detect_images(
        self, images: Sequence[npt.NDArray[np.uint8]], score_threshold: float
    ) -> list[Detections]:
        return [self._found for _ in images]


@pytest.mark.usefixtures("log_kept")
def test_the_command(
    shots: Path, tmp_path: Path, detector: Detector, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, sheet = tmp_path / "labels.json", tmp_path / "sheet.jpg"
    command = ["label", str(shots), "--teacher", str(model), "--out", str(out), "--names", "person,bike"]
    assert main([*command, "--map", "bicycle=bike", "--unsure", "0.2", "--sheet", str(sheet)]) == 0
    said = capsys.readouterr().err
    assert f"{shots / '90.jpg'}: this picture cannot be decoded" in said
    assert "3 pictures: " in said
    assert "1 could not be read" in said
    examples = load_coco(out, shots, ("person", "bike"))
    assert [example.path.name for example in examples] == ["0.jpg", "60.jpg", "120.jpg"]
    labels = regions = 0
    for example in examples:
        (found,) = detector.detect_images([read_rgb(example.path)], 0.2)
        known = np.isin(found.classes, [detector.spec.names.index(name) for name in ("person", "bicycle")])
        alike = found.classes[:, None] == found.classes
        known &= ~np.tril(alike & (overlap(found.boxes, found.boxes) > 0.65), -1).any(1)  # one object twice
        sure = known & (found.scores >= 0.5)
        assert example.boxes == pytest.approx(found.boxes[sure], abs=0.02)
        assert example.crowds == pytest.approx(found.boxes[known & ~sure], abs=0.02)
        labels, regions = labels + int(sure.sum()), regions + int((known & ~sure).sum())
        example.read()
    assert labels
    assert regions
    assert cv2.imread(str(sheet)).shape[1] == 6 * 240


@pytest.mark.usefixtures("log_kept")
def test_what_cannot_be_is_told_and_leaves_nothing(
    shots: Path, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, empty = tmp_path / "labels.json", tmp_path / "empty"
    empty.mkdir()
    before = sorted(tmp_path.rglob("*"))
    for code, pictures, options, message in (
        (
            2,
            shots,
            ["--names", "person,zebra"],
            "--names: the teacher has no class zebra; .*person, bicycle, car",
        ),
        (2, shots, ["--map", "lorry=truck"], "--map: the teacher has no class lorry"),
        (2, shots, ["--names", "car", "--map", "bus=van"], "van is not among --names"),
        (2, shots, ["--map", "bus"], "expected OLD=NEW"),
        (2, shots, ["--sure", "0.2"], "the unsure one not the higher"),
        (2, shots, ["--sheet", str(shots / "sheet.jpg")], "lies among the pictures"),
        (2, shots, ["--sheet", str(tmp_path / "sheet.gif")], "expected a .jpg"),
        (1, empty, [], "there are no pictures"),
        (1, shots / "90.jpg", [], "none of its pictures can be read"),
    ):
        command = ["label", str(pictures), "--teacher", str(model), "--out", str(out), *options]
        assert main(command) == code, options
        said = capsys.readouterr().err
        assert re.search(message, said), said
    assert sorted(tmp_path.rglob("*")) == before


def test_what_people_annotated_stays_and_is_completed(shots: Path, tmp_path: Path) -> None:
    document = {
        "info": {"year": 2024},
        "images": [{"id": 7, "file_name": "60.jpg", "width": 640, "height": 272}],
        "annotations": [
            {"id": 4, "image_id": 7, "category_id": 3, "bbox": [100, 100, 40, 80], "by": "hand"},
            {"id": 9, "image_id": 7, "category_id": 3, "bbox": [400, 0, 200, 200], "iscrowd": 1},
        ],
        "categories": [{"id": 3, "name": "person"}, {"id": 5, "name": "cart"}],
    }
    given = tmp_path / "given.json"
    given.write_text(json.dumps(document))
    teacher = Hand(
        ([102, 98, 141, 180], 0.9, "person"),  # the annotated one
        ([100, 100, 140, 150], 0.85, "car"),  # of another class
        ([100, 130, 140, 200], 0.8, "person"),  # overlaps the annotated one by 0.5
        ([100, 100, 140, 128], 0.75, "person"),  # by 0.35: it may be the same
        ([450, 20, 490, 100], 0.7, "person"),  # in the crowd
        ([10, 10, 50, 90], 0.6, "person"),
        ([200, 10, 240, 90], 0.3, "person"),
    )
    labels = label(shots, teacher, NAMES, Wishes(names=("car", "person"), add_to=given))
    added = labels.document["annotations"][2:]
    assert labels.document["annotations"][:2] == document["annotations"]
    assert labels.document["images"] == document["images"], "other pictures of the folder may be held out"
    assert labels.document["info"] == {"year": 2024}
    assert labels.document["categories"] == [*document["categories"], {"id": 6, "name": "car"}]  # type: ignore[misc]
    assert [(row["id"], row["category_id"], row["bbox"], row["iscrowd"]) for row in added] == [
        (10, 6, [100, 100, 40, 50], 0),
        (11, 3, [10, 10, 40, 80], 0),
        (12, 3, [100, 100, 40, 28], 1),
        (13, 3, [200, 10, 40, 80], 1),
    ]
    assert label(shots, teacher, NAMES, Wishes(add_to=given)).names == ("person",), "of its own those it has"


def test_two_names_of_the_teacher_for_one_object_are_one_label(shots: Path) -> None:
    teacher = Hand(
        ([10, 10, 60, 60], 0.8, "car"), ([11, 10, 60, 61], 0.6, "truck"), ([200, 10, 260, 60], 0.55, "truck")
    )
    wishes = Wishes(names=("vehicle",), renamed={"car": "vehicle", "truck": "vehicle"})
    (first, *_) = label(shots, teacher, NAMES, wishes).pictures
    assert first.sure.scores.tolist() == pytest.approx([0.8, 0.55])


def test_the_rules_by_hand() -> None:
    boxes = np.array([[0, 0, 50, 90], [100, 0, 107, 90], [200, 0, 250, 90], [300, 0, 350, 90]], np.float32)
    found = Boxes(boxes, np.array([0.9, 0.8, 0.5, 0.2], np.float32), np.zeros(4, np.int64))
    sure, unsure = settle(found, None, Rules(sure=0.5, unsure=0.25, shortest_px=8))
    assert sure.boxes.tolist() == boxes[[0, 2]].tolist()
    assert unsure.boxes.tolist() == boxes[[1]].tolist(), "too small to be a label is left open"
    none = found.where(np.zeros(4, np.bool_))
    assert [len(part.scores) for part in settle(none, None, Rules())] == [0, 0]


def test_sheets_begin_with_the_least_sure_and_are_bounded(
    shots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = label(shots, Hand(([10, 10, 60, 60], 0.8, "car")), NAMES, Wishes())
    monkeypatch.setattr("stream.label.COLUMNS", 1)
    monkeypatch.setattr("stream.label.ROWS", 1)
    monkeypatch.setattr("stream.label.MOST_PAGES", 2)
    doubtful = labels.pictures[1]
    labels.pictures[1] = type(doubtful)(doubtful.picture, doubtful.sure, doubtful.sure)
    files = draw_sheets(labels, tmp_path / "sheet.jpg")
    assert [file.name for file in files] == ["sheet.jpg", "sheet-2.jpg"]
    first, second = (cv2.imread(str(file)) for file in files)
    likest = [
        np.abs(cv2.resize(cv2.imread(str(shots / name)), (240, 102)).astype(int) - first[:102]).mean()
        for name in ("0.jpg", "60.jpg", "120.jpg")
    ]
    assert int(np.argmin(likest)) == 1
    assert first.shape[1] == second.shape[1] == 240
