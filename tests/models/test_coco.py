from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.coco import load_coco, read_coco
from models.errors import DataError
from tests.models.conftest import SHAPES

Change = Callable[[dict[str, Any]], None]


def _changed(annotations: Path, change: Change) -> Path:
    document = json.loads(annotations.read_text())
    change(document)
    annotations.write_text(json.dumps(document))
    return annotations


def test_boxes_become_corners_and_classes_go_by_name(shapes: Path) -> None:
    document = json.loads(shapes.read_text())
    examples = load_coco(shapes, shapes.parent, ("other", "disc", "square"))
    for example, annotation in zip(examples, document["annotations"], strict=True):
        x, y, width, height = annotation["bbox"]
        assert example.boxes.tolist() == [[x, y, x + width, y + height]]
        assert example.classes.tolist() == [2 if annotation["category_id"] == 1 else 1]
        assert example.read().shape == (example.height, example.width, 3)


def test_other_categories_are_left_out_and_their_pictures_kept(shapes: Path) -> None:
    examples = load_coco(shapes, shapes.parent, ("disc",))
    assert len(examples) == 8
    assert sum(len(example.boxes) for example in examples) == 4


def test_crowds_are_kept_apart(shapes: Path) -> None:
    _changed(shapes, lambda document: document["annotations"][0].update(iscrowd=1))
    first = load_coco(shapes, shapes.parent, SHAPES)[0]
    assert first.boxes.shape == (0, 4)
    assert first.crowds.shape == (1, 4)


def test_a_small_overshoot_is_clipped(shapes: Path) -> None:
    _changed(shapes, lambda document: document["annotations"][0].update(bbox=[-2, -1, 131, 50]))
    assert load_coco(shapes, shapes.parent, SHAPES)[0].boxes.tolist() == [[0, 0, 128, 49]]


def test_boxes_can_grow_upwards(shapes: Path) -> None:
    plain = load_coco(shapes, shapes.parent, SHAPES)
    grown = load_coco(shapes, shapes.parent, SHAPES, extend_top=0.25)
    for before, after in zip(plain, grown, strict=True):
        x1, y1, x2, y2 = before.boxes[0].tolist()
        assert after.boxes[0].tolist() == pytest.approx([x1, max(0, y1 - (y2 - y1) / 4), x2, y2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["annotations"][2].update(bbox=[9, 2, -3, 5]), r"annotation 3: bbox .* negative size"),
        (
            lambda d: d["annotations"][2].update(bbox=[1, 2, 5]),
            r"annotation 3: .* expected four finite numbers",
        ),
        (lambda d: d["annotations"][2].update(bbox=[1, 2, 5, None]), r"annotation 3: .* four finite numbers"),
        (lambda d: d["annotations"][2].update(bbox=[1, 2, 5, 10**400]), r"annotation 3: .* four finite"),
        (lambda d: d["annotations"][2].update(bbox=[1, 2, 5, float("nan")]), r"annotation 3: .* four finite"),
        (lambda d: d["annotations"][2].update(bbox=[100, 2, 90, 5]), r"annotation 3: .* leaves its picture"),
        (lambda d: d["annotations"][2].update(image_id=99), r"annotation 3: image_id 99 is not among"),
        (lambda d: d["annotations"][2].update(image_id=[3]), r"annotation 3: image_id is \[3\], .* whole"),
        (lambda d: d["annotations"][2].update(category_id=7), r"annotation 3: category_id 7 is not among"),
        (lambda d: d["annotations"][2].update(category_id=[1]), r"annotation 3: category_id is \[1\], exp"),
        (lambda d: d["annotations"][2].update(iscrowd="0"), r"annotation 3: iscrowd is '0', expected 0 or 1"),
        (lambda d: d["annotations"][2].update(area="big"), r"annotation 3: area is 'big', expected a number"),
        (lambda d: d["annotations"][2].pop("bbox"), r"annotation 3: bbox is None"),
        (lambda d: d["annotations"].insert(2, 5), r"annotations\[2\] is 5, expected an object"),
        (lambda d: d["images"].insert(1, "a.png"), r"images\[1\] is 'a.png', expected an object"),
        (lambda d: d["images"][1].update(file_name="gone.png"), r"image 2: no picture .*gone\.png"),
        (lambda d: d["images"][1].update(id=1), r"image 1: two images have the same id"),
        (lambda d: d["images"][1].update(id="2"), r"image '2': id is '2', expected a whole number"),
        (lambda d: d["images"][1].update(width=120.0), r"image 2: width is 120\.0, expected a whole number"),
        (lambda d: d["images"][1].update(height=0), r"image 2: width and height are 128 and 0"),
        (lambda d: d["images"][1].pop("width"), r"image 2: width is None, expected a whole number"),
        (lambda d: d["images"][1].pop("id"), r"images\[1\]: id is None, expected a whole number"),
        (lambda d: d["images"].clear(), r"list of images is empty"),
        (lambda d: d["categories"].append(7), r"categories\[2\] is 7, expected an object"),
        (lambda d: d["categories"][1].pop("id"), r"categories\[1\]: id is None"),
        (lambda d: d["categories"][1].pop("name"), r"category 2: name is None, expected text"),
        (lambda d: d["categories"][1].update(name=7), r"category 2: name is 7, expected text"),
        (lambda d: d["categories"][1].update(id=1), r"category 1: two categories have the same id"),
        (lambda d: d["categories"].clear(), r"none of its categories \(it has none\)"),
        (lambda d: d.pop("categories"), r"has no list 'categories'"),
    ],
)
def test_bad_annotations_are_named(shapes: Path, change: Change, message: str) -> None:
    _changed(shapes, change)
    with pytest.raises(DataError, match=message) as caught:
        load_coco(shapes, shapes.parent, SHAPES)
    assert str(shapes) in str(caught.value)


def test_what_is_left_out_is_counted_and_said_once(shapes: Path, caplog: pytest.LogCaptureFixture) -> None:
    def change(document: dict[str, Any]) -> None:
        document["categories"].append({"id": 9, "name": "other"})
        for index, bbox in ((0, [1, 2, 0, 5]), (1, [129, 5, 2, 5]), (2, [5, -3, 5, 2])):
            document["annotations"][index]["bbox"] = bbox
        document["annotations"][3].update(category_id=9, bbox=[1, 2, 0, None])

    file = read_coco(_changed(shapes, change), SHAPES)
    assert (file.foreign, file.empty, len(file.annotations)) == (1, 3, 4)
    examples = load_coco(shapes, shapes.parent, SHAPES)
    assert [len(example.boxes) for example in examples] == [0, 0, 0, 0, 1, 1, 1, 1]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == f"{shapes}: leaves out 1 boxes of other categories and 3 boxes without area"


def test_an_area_of_null_is_the_boxs(shapes: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["annotations"][0].update(area=None, iscrowd=None, bbox=[1, 2, 30, 40])
        document["annotations"][1].update(area=77)

    first, second = read_coco(_changed(shapes, change), SHAPES).annotations[:2]
    assert (first.area, first.crowd, second.area) == (1200, False, 77)


def test_a_photograph_is_turned_as_its_annotations_are(shapes: Path) -> None:
    """A 128x96 picture stored with the EXIF rotation that shows it as 96x128."""
    picture = np.zeros((96, 128, 3), np.uint8)
    picture[:48, :64] = 255  # bright at the top left, as stored
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(shapes.parent / "turned.jpg", exif=exif)
    _changed(shapes, lambda document: document["images"][0].update(file_name="turned.jpg"))
    stored = load_coco(shapes, shapes.parent, SHAPES)[0].read()
    assert stored.shape == (96, 128, 3)
    assert (stored[:40, :56].min() > 200, stored[:40, 72:].max() < 50) == (True, True)
    _changed(shapes, lambda document: document["images"][0].update(width=96, height=128))
    _changed(shapes, lambda document: document["annotations"][0].update(bbox=[1, 1, 20, 20]))
    shown = load_coco(shapes, shapes.parent, SHAPES)[0].read()
    assert shown.shape == (128, 96, 3)
    assert (shown[:56, 56:].min() > 200, shown[:56, :40].max() < 50) == (True, True)


def test_no_common_class_is_an_error(shapes: Path) -> None:
    with pytest.raises(DataError, match=r"none of its categories \(square, disc\) is among zebra"):
        load_coco(shapes, shapes.parent, ("zebra",))


def test_files_that_are_not_coco(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_coco(tmp_path / "none.json", tmp_path, SHAPES)
    (tmp_path / "text.json").write_text("hello")
    with pytest.raises(DataError, match="not JSON"):
        load_coco(tmp_path / "text.json", tmp_path, SHAPES)
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(DataError, match="expected a COCO JSON file"):
        load_coco(tmp_path / "list.json", tmp_path, SHAPES)


def test_a_broken_or_resized_picture_is_an_error(shapes: Path) -> None:
    examples = load_coco(shapes, shapes.parent, SHAPES)
    examples[0].path.write_bytes(b"not a picture")
    with pytest.raises(DataError, match="not a readable picture"):
        examples[0].read()
    _changed(shapes, lambda document: document["images"][1].update(width=200))
    with pytest.raises(DataError, match="is 128x96, its annotations say 200x96"):
        load_coco(shapes, shapes.parent, SHAPES)[1].read()
