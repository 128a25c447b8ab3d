"""The paired bootstrap, against draws whose figures are known beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.annotated import Annotation, CocoFile, Picture
from models.bootstrap import drawn_ap50, lead
from models.evaluate import Prediction, ground_truth, judged

NAMES = ("person",)
BOX = (10.0, 10.0, 30.0, 50.0)


def file_of(objects: list[int]) -> CocoFile:
    """A picture each with so many people, side by side."""
    boxes = [(number, at) for number, count in enumerate(objects) for at in range(count)]
    annotations = tuple(
        Annotation(number, 0, (BOX[0] + 40 * at, BOX[1], BOX[2] + 40 * at, BOX[3]), 800.0, crowd=False)
        for number, at in boxes
    )
    pictures = tuple(Picture(number, f"{number}.jpg", 400, 100) for number in range(len(objects)))
    return CocoFile(Path("file.json"), NAMES, pictures, annotations, 0, 0)


def finding(file: CocoFile, pictures: set[int]) -> list[Prediction]:
    """Everybody in these pictures, and nobody in the others."""
    found = []
    for picture in file.pictures:
        boxes = [
            each.box
            for each in file.annotations
            if each.image_id == picture.image_id and picture.image_id in pictures
        ]
        count = len(boxes)
        scores, classes = np.full(count, 0.9, np.float32), np.zeros(count, np.int64)
        found.append(
            Prediction(picture.image_id, np.array(boxes, np.float32).reshape(-1, 4), scores, classes)
        )
    return found


def test_of_two_pictures_there_are_three_kinds_of_draws() -> None:
    file = file_of([1, 1])
    drawn = drawn_ap50(file, NAMES, finding(file, {0}), draws=60)
    half = judged(ground_truth(file, NAMES), NAMES, finding(file, {0})).AP50
    assert half == pytest.approx(0.5, abs=0.01)
    assert drawn[0] == half
    assert set(np.round(drawn[1:], 6)) == {0.0, round(half, 6), 1.0}
    assert 0.3 < np.isclose(drawn[1:], half).mean() < 0.7, "half of the draws have both"


def test_both_are_measured_on_the_same_draws() -> None:
    file = file_of([1, 1, 1, 1])
    first, second = (drawn_ap50(file, NAMES, finding(file, some), draws=40) for some in ({0, 1}, {2, 3}))
    assert np.allclose(first + second, 1.0, atol=0.02)
    assert lead(first, first).low == lead(first, first).high == lead(first, first).difference == 0.0


def test_a_lead_on_every_picture_is_sure_and_one_on_a_single_picture_is_not() -> None:
    file = file_of([2] * 12)
    everybody = drawn_ap50(file, NAMES, finding(file, set(range(12))), draws=200)
    half = drawn_ap50(file, NAMES, finding(file, set(range(6))), draws=200)
    nearly = drawn_ap50(file, NAMES, finding(file, set(range(11))), draws=200)
    sure, unsure = lead(everybody, half), lead(everybody, nearly)
    assert sure.difference == pytest.approx(0.5, abs=0.01)
    assert 0 < sure.low < sure.difference < sure.high
    assert unsure.low == 0 < unsure.difference < unsure.high


def test_a_draw_without_objects_tells_nothing() -> None:
    file = file_of([1, 0])
    drawn = drawn_ap50(file, NAMES, finding(file, {0}), draws=40)
    assert drawn[0] == 1.0
    assert 0 < np.isnan(drawn).sum() < 40
    assert lead(drawn, drawn).high == 0.0
