"""The evaluator on cases whose figures are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from models.errors import DataError
from models.evaluate import Prediction, coco_metrics

NAMES = ("cat", "person")  # another order than the file's


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """Two pictures; two people and a cat, and a zebra that the model does not know."""
    boxes = [
        (1, 1, [10, 10, 40, 80]),
        (1, 1, [60, 10, 40, 80]),
        (2, 3, [0, 0, 50, 50]),
        (2, 5, [60, 60, 30, 30]),
    ]
    path = tmp_path / "truth.json"
    path.write_text(
        json.dumps(
            {
                "images": [
                    {"id": image, "file_name": f"{image}.jpg", "width": 100, "height": 100}
                    for image in (1, 2)
                ],
                "categories": [
                    {"id": 1, "name": "person"},
                    {"id": 3, "name": "cat"},
                    {"id": 5, "name": "zebra"},
                ],
                "annotations": [
                    {"id": number, "image_id": image, "category_id": category, "bbox": box}
                    for number, (image, category, box) in enumerate(boxes, start=1)
                ],
            }
        )
    )
    return path


def _prediction(image_id: int, rows: list[tuple[list[float], float, int]]) -> Prediction:
    return Prediction(
        image_id,
        np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in rows], np.float32),
        np.array([class_ for _, _, class_ in rows], np.int64),
    )


def _close(found: float, expected: float) -> bool:
    return found == pytest.approx(expected)


FIRST, SECOND, CAT = [10.0, 10, 50, 90], [60.0, 10, 100, 90], [0.0, 0, 50, 50]


def test_perfect_predictions_score_one(annotations: Path) -> None:
    predictions = [
        _prediction(1, [(FIRST, 0.9, 1), (SECOND, 0.8, 1)]),
        _prediction(2, [(CAT, 0.7, 0)]),
    ]
    metrics = coco_metrics(annotations, NAMES, predictions)
    assert _close(metrics.AP, 1)
    assert _close(metrics.AP50, 1)
    assert _close(metrics.AR, 1)
    assert metrics.per_class_AP50 == pytest.approx({"cat": 1, "person": 1})


def test_a_missed_and_a_false_person(annotations: Path) -> None:
    """The false one scores higher: precision is 1/2 up to recall 1/2, then 0."""
    nothing = [60.0, 60, 70, 70]
    predictions = [_prediction(1, [(nothing, 0.9, 1), (FIRST, 0.8, 1)]), _prediction(2, [(CAT, 0.7, 0)])]
    metrics = coco_metrics(annotations, NAMES, predictions)
    recalls_reached = 51 / 101  # of the 101 recall points 0, 0.01, ... 1
    assert metrics.per_class_AP50 == pytest.approx({"cat": 1, "person": 0.5 * recalls_reached})
    assert _close(metrics.AR, (1 + 0.5) / 2)
    assert _close(metrics.AP50, (1 + 0.5 * recalls_reached) / 2)


def test_a_loose_box_counts_at_low_thresholds_only(annotations: Path) -> None:
    loose = [10.0, 10, 50, 66.8]  # IoU 0.71: right at 0.50 to 0.70, five of ten thresholds
    predictions = [_prediction(1, [(loose, 0.9, 0), (SECOND, 0.95, 0)])]
    metrics = coco_metrics(annotations, ("person",), predictions)
    half = 51 / 101  # of the recall points are reached by the exact box alone
    assert _close(metrics.AP50, 1)
    assert _close(metrics.AP, (5 * 1 + 5 * half) / 10)


def test_nothing_found_scores_zero(annotations: Path) -> None:
    metrics = coco_metrics(annotations, NAMES, [])
    assert (metrics.AP, metrics.AP50, metrics.AR) == (0, 0, 0)


def test_a_class_without_truth_is_left_out(annotations: Path) -> None:
    found = [_prediction(1, [(FIRST, 0.9, 1), (SECOND, 0.8, 1), (CAT, 0.9, 2)])]
    metrics = coco_metrics(annotations, ("cat", "person", "bus"), found)
    assert set(metrics.per_class_AP) == {"cat", "person"}
    assert _close(metrics.AP50, 0.5)


def test_without_a_box_of_these_classes_there_is_nothing_to_measure(annotations: Path) -> None:
    document = json.loads(annotations.read_text())
    document["annotations"] = document["annotations"][:2]
    annotations.write_text(json.dumps(document))
    with pytest.raises(DataError, match="has no box of cat"):
        coco_metrics(annotations, ("cat",), [])
