"""Which class was taken for which: a detector's confusion matrix. Knows nothing of models or files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from models.boxes import covered, pairwise_iou
from models.coco import Example
from models.evaluate import Prediction

MATCH_IOU = 0.5
SHOWN_SCORE = 0.3
"""Detections below are left out."""
_IN_CROWD = 0.5


def confusion(
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    classes: int,
    score: float = SHOWN_SCORE,
) -> npt.NDArray[np.int64]:
    """How often each class was found as each: int64 (C + 1, C + 1), truth by prediction; the last is background.

    The surest detection takes the object that it overlaps most, by half or more, of whatever class; what finds none is
    background found as something, and an object that nothing took is something found as background. Detections
    that lie in crowds do not count.
    """
    by_picture = {prediction.image_id: prediction for prediction in predictions}
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    for example in examples:
        taken: set[int] = set()
        for box, class_ in _sure(by_picture.get(example.image_id), score):
            true = _best(example, box, taken)
            if true is not None:
                taken.add(true)
                matrix[example.classes[true], class_] += 1
            elif not _in_crowd(example, box):
                matrix[classes, class_] += 1
        for number, class_ in enumerate(example.classes.tolist()):
            if number not in taken:
                matrix[class_, classes] += 1
    return matrix


def _sure(found: Prediction | None, score: float) -> Iterator[tuple[npt.NDArray[np.float32], int]]:
    """Boxes and classes that count, the surest first."""
    if found is not None:
        for row in np.argsort(-found.scores, kind="stable").tolist():
            if found.scores[row] >= score:
                yield found.boxes[row], int(found.classes[row])


def _best(example: Example, box: npt.NDArray[np.float32], taken: set[int]) -> int | None:
    if len(taken) == len(example.boxes):
        return None
    overlaps = pairwise_iou(torch.from_numpy(box[None]), torch.from_numpy(example.boxes))[0].numpy()
    overlaps[list(taken)] = 0.0
    best = int(overlaps.argmax())
    return best if overlaps[best] >= MATCH_IOU else None


def _in_crowd(example: Example, box: npt.NDArray[np.float32]) -> bool:
    inside = covered(torch.from_numpy(box[None]), torch.from_numpy(example.crowds))
    return bool((inside > _IN_CROWD).any())
