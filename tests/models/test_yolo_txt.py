"""YOLO's text files: the same pictures and boxes as COCO JSON says, and every mistake with its file and line."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from models.annotations import load_annotations, read_annotations
from models.coco import load_coco
from models.errors import DataError
from tests.models.conftest import SHAPES


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """A data set in that form, of one picture with two objects and one without; returns the labels' folder."""
    for name in ("a", "b"):
        path = tmp_path / "images" / "train" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((80, 100, 3), np.uint8))
    labels = tmp_path / "labels" / "train"
    labels.mkdir(parents=True)
    (labels / "a.txt").write_text("1 0.5 0.5 0.2 0.5\n\n0 0.1 0.2 0.3 0.2 0.3 0.9\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [car, person]\n")
    return labels


def test_boxes_polygons_and_pictures_without_objects(yolo: Path, tmp_path: Path) -> None:
    first, second = load_annotations(yolo, tmp_path / "images" / "train", ("person", "car"))
    assert (first.path.name, first.width, first.height) == ("a.jpg", 100, 80)
    np.testing.assert_allclose(first.boxes, [[40, 20, 60, 60], [10, 16, 30, 72]])
    assert first.classes.tolist() == [0, 1], "in the model's order"
    assert (second.path.name, len(second.boxes)) == ("b.jpg", 0)


def test_the_same_annotations_as_coco_give_the_same_examples(shapes: Path, tmp_path: Path) -> None:
    expected = load_coco(shapes, shapes.parent, SHAPES)
    for example in expected:
        label = tmp_path / "labels" / example.path.relative_to(shapes.parent).with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        with label.open("w") as file:
            for (x1, y1, x2, y2), class_ in zip(
                example.boxes.tolist(), example.classes.tolist(), strict=True
            ):
                centre = (x1 + x2) / 2 / example.width, (y1 + y2) / 2 / example.height
                size = (x2 - x1) / example.width, (y2 - y1) / example.height
                print(class_, *centre, *size, file=file)
    (tmp_path / "classes.txt").write_text("\n".join(SHAPES))
    found = load_annotations(tmp_path / "labels", shapes.parent, SHAPES)
    assert [example.path for example in found] == sorted(example.path for example in expected)
    by_path = {example.path: example for example in expected}
    for example in found:
        np.testing.assert_allclose(example.boxes, by_path[example.path].boxes, atol=1e-3)
        assert example.classes.tolist() == by_path[example.path].classes.tolist()


def test_other_classes_are_counted_and_boxes_outside_by_a_hair_clipped(yolo: Path, tmp_path: Path) -> None:
    (yolo / "b.txt").write_text("1 0.5 0.005 0.2 0.02\n1 0.5 0.5 0 0\n0 0.5 0.5 0.1 0.1\n")
    file = read_annotations(yolo, tmp_path / "images" / "train", ("person",))
    assert (file.categories, file.foreign, file.empty) == (("car", "person"), 2, 1)
    (box,) = [each.box for each in file.annotations if each.image_id == 2]
    assert box == pytest.approx((40, 0, 60, 1.2))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 0.5 0.5 0.2", "3 numbers after the class; expected class cx cy width height, in parts"),
        ("0 0.5 0.5 0.2 0.2 0.9", "5 numbers after the class"),
        ("0 0.5 0.5 -0.2 0.2", "a size below 0"),
        ("0 0.5 0.5 nan 0.2", "a size below 0"),
        ("0 0.5 nan 0.2 0.2", "reaches out of the picture"),
        ("0 50 40 20 20", "reaches out of the picture"),
        ("car 0.5 0.5 0.2 0.2", "invalid literal"),
        ("0 0.5 0.5 0.2 wide", "could not convert"),
        ("2 0.5 0.5 0.2 0.2", "class 2 has no name, expected one of 0 to 1"),
    ],
)
def test_a_bad_line_is_named(yolo: Path, tmp_path: Path, line: str, said: str) -> None:
    (yolo / "b.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(DataError, match="line 2") as error:
        read_annotations(yolo, tmp_path / "images" / "train", ("car",))
    assert str(error.value).startswith(f"{yolo / 'b.txt'}: line 2: ")
    assert said in str(error.value)


def test_what_is_missing_is_named(yolo: Path, tmp_path: Path) -> None:
    images = tmp_path / "images" / "train"
    with pytest.raises(DataError, match=r"none of its categories \(car, person\) is among bus"):
        read_annotations(yolo, images, ("bus",))
    (yolo / "c.txt").write_text("")
    with pytest.raises(DataError, match=r"c\.txt: its picture is not in"):
        read_annotations(yolo, images, ("car",))
    (yolo / "c.txt").unlink()
    (images / "b.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"b\.jpg: not a readable picture"):
        read_annotations(yolo, images, ("car",))
    with pytest.raises(DataError, match="has no picture in it"):
        read_annotations(yolo, yolo, ("car",))
    (tmp_path / "data.yaml").write_text("names: [car]  # of a recipe, say\n")
    with pytest.raises(DataError, match="nothing says what its classes are called"):
        read_annotations(yolo, images, ("car",))
    (tmp_path / "data.yaml").write_text("nc: 2\nnames: {0: car, 1: person}\n")
    (images / "b.jpg").unlink()
    assert read_annotations(yolo, images, ("car",)).categories == ("car", "person")
