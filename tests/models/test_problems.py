"""Mistakes in annotations are all named, and refused or left out as the recipe says."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.annotations import read_annotations
from models.coco import read_coco
from models.errors import DataError
from models.problems import MOST_LISTED, Problems
from models.recipe import load_recipe
from models.training_data import training_data
from tests.models.conftest import SHAPES
from tests.models.voc_files import write_voc


def _damaged(shapes: Path) -> None:
    """Four mistakes in eight pictures with a box each."""
    document = json.loads(shapes.read_text())
    document["annotations"][0]["bbox"] = [5, 5, float("nan"), 5]
    document["annotations"][1]["bbox"] = [500, 5, 20, 5]
    document["annotations"][2]["category_id"] = 77
    shapes.write_text(json.dumps(document))
    (shapes.parent / document["images"][3]["file_name"]).unlink()


def _recipe(folder: Path, shapes: Path, bad: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(
        f"name: damaged\nnames: [square, disc]\ndata: {{train: [{{annotations: {shapes}, images: {shapes.parent}}}], "
        f"bad: {bad}}}\nschedule: {{epochs: 1}}\n"
    )
    return path


def test_all_of_them_are_refused_at_once(tmp_path: Path, shapes: Path) -> None:
    _damaged(shapes)
    with pytest.raises(DataError) as error:
        training_data(load_recipe(_recipe(tmp_path, shapes, "refuse")))
    first, second, third = str(error.value).splitlines()
    assert "bbox is [5, 5, nan, 5]" in first
    assert "leaves its picture" in second
    assert "category_id 77" in third
    assert all(line.startswith(f"{shapes}: annotation ") for line in (first, second, third))


def test_all_of_them_are_left_out_and_told_of(
    tmp_path: Path, shapes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _damaged(shapes)
    with caplog.at_level(logging.WARNING):
        examples, _ = training_data(load_recipe(_recipe(tmp_path, shapes, "skip")))
    assert [len(example.boxes) for example in examples] == [0, 0, 0, 1, 1, 1, 1], "the fourth has no file"
    entries, missing = [record.getMessage() for record in caplog.records]
    assert entries.startswith(f"{shapes}: leaves out 3 entries that are wrong:\n{shapes}: annotation ")
    assert missing.startswith(
        f"{shapes}: leaves out 1 entries that are wrong:\n{shapes}: image 4: no picture "
    )


def test_of_many_the_first_are_listed(shapes: Path) -> None:
    document = json.loads(shapes.read_text())
    entry = document["annotations"][0]
    document["annotations"] = [{**entry, "id": number, "iscrowd": 7} for number in range(MOST_LISTED + 5)]
    shapes.write_text(json.dumps(document))
    with pytest.raises(DataError) as error:
        read_coco(shapes, SHAPES)
    lines = str(error.value).splitlines()
    assert len(lines) == MOST_LISTED + 1
    assert lines[-1] == "... and 5 more"


def test_of_xml_and_text_files_too(tmp_path: Path) -> None:
    for folder in ("images", "xml", "txt"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), np.zeros((80, 100, 3), np.uint8))
        objects = [("disc", (1, 1, 9, 9), 0), ("disc", (200, 1, 250, 9), 0), ("disc", (9, 1, 1, 9), 0)]
        write_voc(tmp_path / "xml" / f"{name}.xml", f"{name}.png", 100, 80, objects)
        (tmp_path / "txt" / f"{name}.txt").write_text("1 0.5 0.5 0.2 0.2\n1 5 5 5 5\n9 0.5 0.5 0.1 0.1\n")
    (tmp_path / "xml" / "c.xml").write_text("<html/>")
    (tmp_path / "txt" / "c.txt").write_text("")
    (tmp_path / "classes.txt").write_text("square\ndisc\n")
    for folder in ("xml", "txt"):
        with pytest.raises(DataError) as error:
            read_annotations(tmp_path / folder, tmp_path / "images", SHAPES)
        assert len(str(error.value).splitlines()) == 5
        file = read_annotations(tmp_path / folder, tmp_path / "images", SHAPES, Problems(skip=True))
        assert (len(file.pictures), len(file.annotations)) == (2, 2)
