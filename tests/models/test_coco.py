from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.coco import load_coco
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
        (lambda d: d["annotations"][2].update(bbox=[1, 2, 0, 5]), r"annotation 3: bbox .* has no area"),
        (
            lambda d: d["annotations"][2].update(bbox=[1, 2, 5]),
            r"annotation 3: .* expected four finite numbers",
        ),
        (lambda d: d["annotations"][2].update(bbox=[1, 2, 5, None]), r"annotation 3: .* four finite numbers"),
        (lambda d: d["annotations"][2].update(bbox=[1, 2, 5, float("nan")]), r"annotation 3: .* four finite"),
        (lambda d: d["annotations"][2].update(bbox=[100, 2, 90, 5]), r"annotation 3: .* leaves its picture"),
        (lambda d: d["annotations"][2].update(image_id=99), r"annotation 3: image_id 99 is not among"),
        (lambda d: d["annotations"][2].update(category_id=7), r"annotation 3: category_id 7 is not among"),
        (lambda d: d["annotations"][2].pop("bbox"), r"annotation 3: bbox is None"),
        (lambda d: d["images"][1].update(file_name="gone.png"), r"image 2: no picture .*gone\.png"),
        (lambda d: d["images"][1].update(id=1), r"two images have the same id"),
        (lambda d: d["images"][1].pop("width"), r"image 2 needs id, file_name, width and height"),
        (lambda d: d.pop("categories"), r"has no list 'categories'"),
    ],
)
def test_bad_annotations_are_named(shapes: Path, change: Change, message: str) -> None:
    _changed(shapes, change)
    with pytest.raises(DataError, match=message) as caught:
        load_coco(shapes, shapes.parent, SHAPES)
    assert str(shapes) in str(caught.value)


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
