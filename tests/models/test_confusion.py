"""The confusion matrix, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.coco import Example
from models.confusion import confusion
from models.evaluate import Prediction


def test_every_object_and_every_detection_counts_once() -> None:
    truth = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], np.float32)
    crowd = np.array([[60, 0, 90, 30]], np.float32)
    example = Example(1, Path("1.png"), 100, 50, truth, np.array([0, 1, 1]), crowd, False)
    empty = Example(
        2,
        Path("2.png"),
        100,
        50,
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.int64),
        np.zeros((0, 4), np.float32),
        False,
    )
    found = [
        ([0, 0, 10, 9], 0.9, 0),  # the first, right
        ([1, 0, 10, 10], 0.8, 0),  # the first once more: background found as 0
        ([20, 0, 30, 9], 0.7, 0),  # the second, taken for 0
        ([65, 5, 75, 15], 0.9, 1),  # in the crowd
        ([40, 0, 50, 10], 0.2, 1),  # not sure enough: the third is missed
    ]
    boxes, scores, classes = zip(*found, strict=True)
    here = Prediction(1, np.array(boxes, np.float32), np.array(scores, np.float32), np.array(classes))
    there = Prediction(2, np.array([[0, 0, 5, 5]], np.float32), np.array([0.5], np.float32), np.array([1]))
    matrix = confusion([example, empty], [here, there], 2)
    assert matrix.tolist() == [[1, 0, 0], [1, 0, 1], [1, 1, 0]]
    assert confusion([example, empty], [], 2).tolist() == [[0, 0, 1], [0, 0, 2], [0, 0, 0]]
