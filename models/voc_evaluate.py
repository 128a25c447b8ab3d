"""Precision and recall as the score falls, by PASCAL VOC's rules, and average precision from them.

A detection is right where its IoU with the object of its class that it overlaps most is at least 0.5 and no
better detection has that object already: a second one is wrong. Where that object is difficult (a crowd), the
detection counts neither way, however many there are (VOC 2010 development kit, section 3.4.1).

Works on arrays. Knows nothing of models, runtimes or pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from models.annotated import CocoFile
from models.errors import DataError
from models.evaluate import Prediction

Floats = npt.NDArray[np.float64]

IOU = 0.5


@dataclass(frozen=True, slots=True)
class Curve:
    """One class: after the k best-scored detections that count, k = 1 to N."""

    scores: Floats
    """(N,), descending: the score of the k-th."""
    precision: Floats
    """(N,): how many of the k are right."""
    recall: Floats
    """(N,): how many of all objects are found."""

    def area(self) -> float:
        """Average precision as from VOC 2010 on: the area under the curve, made to fall only."""
        recall = np.concatenate([[0.0], self.recall])
        return float((np.diff(recall) * self._at_least()).sum())

    def eleven_points(self) -> float:
        """Average precision as until VOC 2009: the mean of the precision at recall 0, 0.1, ... 1."""
        best = self._at_least()
        reached = np.searchsorted(self.recall, np.arange(11) / 10 - 1e-9)
        return float(sum(best[place] for place in reached if place < len(best)) / 11)

    def _at_least(self) -> Floats:
        """The highest precision (N,) at the same or a higher recall."""
        highest: Floats = np.maximum.accumulate(self.precision[::-1])[::-1]
        return highest


@dataclass(frozen=True, slots=True)
class VocMetrics:
    """VOC's figures, 0 to 1, at its one IoU; the mean is over the classes that have objects."""

    AP50: float
    per_class_AP50: dict[str, float]


@dataclass(slots=True)
class _Objects:
    """The objects of one class in one picture, and which of them have been found."""

    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    found: set[int] = field(default_factory=set)


def voc_metrics(found: dict[str, Curve], eleven_points: bool = False) -> VocMetrics:
    """Average precision of :func:`curves`: the area under them, or the mean at eleven recalls."""
    each = {name: curve.eleven_points() if eleven_points else curve.area() for name, curve in found.items()}
    return VocMetrics(sum(each.values()) / len(each), each)


def curves(file: CocoFile, names: Sequence[str], predictions: Iterable[Prediction]) -> dict[str, Curve]:
    """The curve of every class that has an object in ``file`` that is not difficult.

    Pictures without a prediction count as empty.

    Raises:
        DataError: no class has one.
    """
    objects: dict[tuple[int, int], _Objects] = {}
    counts = [0] * len(names)
    for annotation in file.annotations:
        here = objects.setdefault((annotation.class_, annotation.image_id), _Objects())
        here.boxes.append(annotation.box)
        here.difficult.append(annotation.crowd)
        counts[annotation.class_] += not annotation.crowd
    detections: list[list[tuple[float, int, Floats]]] = [[] for _ in names]  # score, picture, box
    for prediction in predictions:
        boxes = prediction.boxes.astype(np.float64)
        for score, class_, box in zip(
            prediction.scores.tolist(), prediction.classes.tolist(), boxes, strict=True
        ):
            detections[class_].append((score, prediction.image_id, box))
    if not any(counts):
        raise DataError(f"{file.path}: has no box of {', '.join(names)}; nothing can be measured on it")
    return {
        name: _curve(detections[class_], class_, objects, counts[class_])
        for class_, name in enumerate(names)
        if counts[class_]
    }


def _curve(
    detections: list[tuple[float, int, Floats]],
    class_: int,
    objects: dict[tuple[int, int], _Objects],
    count: int,
) -> Curve:
    scores, right = [], []
    for score, image_id, box in sorted(detections, key=lambda detection: -detection[0]):
        is_right = _judge(box, objects.get((class_, image_id)))
        if is_right is not None:
            scores.append(score)
            right.append(is_right)
    found = np.cumsum(np.array(right, np.float64))
    return Curve(np.array(scores, np.float64), found / np.arange(1, len(right) + 1), found / count)


def _judge(box: Floats, here: _Objects | None) -> bool | None:
    """Whether the next-best detection is right; None where it does not count."""
    if here is None:
        return False
    overlaps = iou(box, np.array(here.boxes))
    best = int(overlaps.argmax())
    if overlaps[best] < IOU:
        return False
    if here.difficult[best]:
        return None
    if best in here.found:
        return False
    here.found.add(best)
    return True


def iou(box: Floats, boxes: Floats) -> Floats:
    """Intersection over union (M,) of an xyxy box (4,) with boxes (M, 4)."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = sides.clip(0).prod(1)
    union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - shared
    ratio: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio
