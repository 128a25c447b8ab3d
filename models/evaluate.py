"""COCO metrics of predictions, by faster-coco-eval.

Works on arrays, whoever made them: training's validation and ``lookout eval`` share it.
Knows nothing of models, runtimes or pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster

from models.annotated import CocoFile
from models.coco import read_coco
from models.errors import DataError

_ALL_AREAS = 0
_MOST_DETECTIONS = -1
_IOU_050 = 0


@dataclass(frozen=True, slots=True)
class Prediction:
    """Detections of one picture; boxes are xyxy in source pixels."""

    image_id: int
    boxes: npt.NDArray[np.float32]
    """float32 (N, 4)."""
    scores: npt.NDArray[np.float32]
    """float32 (N,)."""
    classes: npt.NDArray[np.int64]
    """int64 (N,), indices into the model's names."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """COCO's figures, 0 to 1: 100 detections a picture, all sizes, IoU 0.50 to 0.95 or 0.50 alone.

    Means are over the classes that have ground truth; the others are not in the dicts.
    """

    AP: float
    AP50: float
    AR: float
    per_class_AP: dict[str, float]
    per_class_AP50: dict[str, float]


def coco_metrics(annotations: Path, names: Sequence[str], predictions: Iterable[Prediction]) -> Metrics:
    """Judge predictions against a COCO JSON file.

    Categories are matched to ``names`` by name; those the model does not have are left out, and so
    are classes that the file has no box of. Pictures without a prediction count as empty.

    Raises:
        DataError: the file is not COCO JSON, or has no box of ``names``.
    """
    return judged(ground_truth(read_coco(annotations, names), names), names, predictions)


def judged(truth: COCO, names: Sequence[str], predictions: Iterable[Prediction]) -> Metrics:
    """As :func:`coco_metrics`, against a :func:`ground_truth` that is used again and again."""
    results = [row for prediction in predictions for row in _rows(prediction)]
    evaluator = COCOeval_faster(truth, truth.loadRes(results), "bbox", print_function=_silent)
    evaluator.evaluate()
    evaluator.accumulate()
    # precision: (IoU thresholds, recalls, classes, areas, limits); recall lacks the second; -1 is absent
    precision = evaluator.eval["precision"][:, :, :, _ALL_AREAS, _MOST_DETECTIONS]
    recall = evaluator.eval["recall"][:, :, _ALL_AREAS, _MOST_DETECTIONS]
    known = [class_ for class_ in range(len(names)) if precision[0, 0, class_] >= 0]
    return Metrics(
        AP=float(precision[:, :, known].mean()),
        AP50=float(precision[_IOU_050][:, known].mean()),
        AR=float(recall[:, known].mean()),
        per_class_AP={names[class_]: float(precision[:, :, class_].mean()) for class_ in known},
        per_class_AP50={names[class_]: float(precision[_IOU_050, :, class_].mean()) for class_ in known},
    )


def ground_truth(file: CocoFile, names: Sequence[str]) -> COCO:
    """What to judge by, with the model's own class indices (from 1) as categories.

    Raises:
        DataError: there is no box of ``names`` to compare with.
    """
    boxes = [
        {
            "id": number,
            "image_id": annotation.image_id,
            "category_id": annotation.class_ + 1,
            "bbox": _xywh(annotation.box),
            "area": annotation.area,
            "iscrowd": int(annotation.crowd),
        }
        for number, annotation in enumerate(file.annotations, start=1)
    ]
    if not any(box["iscrowd"] == 0 for box in boxes):
        raise DataError(f"{file.path}: has no box of {', '.join(names)}; nothing can be measured on it")
    images = [
        {"id": picture.image_id, "width": picture.width, "height": picture.height}
        for picture in file.pictures
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    return COCO({"images": images, "annotations": boxes, "categories": categories})


def _rows(prediction: Prediction) -> Iterator[dict[str, object]]:
    for box, score, class_ in zip(prediction.boxes, prediction.scores, prediction.classes, strict=True):
        yield {
            "image_id": prediction.image_id,
            "category_id": int(class_) + 1,
            "bbox": _xywh(box.tolist()),
            "score": float(score),
        }


def _xywh(box: Sequence[float]) -> list[float]:
    left, top, right, bottom = box
    return [left, top, right - left, bottom - top]


def _silent(*_: object) -> None:
    """faster-coco-eval reports its progress through a callable; the figures are enough."""
