"""What a model finds in one picture, computed plainly: the reference that an export is held against.

Written in NumPy from the contract's words, apart from the graph in ``graph``, so that a mistake in
one shows against the other. Knows nothing of ONNX, torch or files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export.contract import CANDIDATES, KEPT, SCORE_FLOOR

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Found:
    """Detections in one letterboxed picture, best first.

    ``cut`` is the best score at which the contract's limits (candidates, rows) may have left
    something out; 0 where they left out nothing. At or below it two correct implementations may
    differ, because a rounding error decides who is the last to enter.
    """

    boxes: Floats  # (N, 4) xyxy, input pixels
    scores: Floats  # (N,)
    classes: Ints  # (N,)
    cut: float = 0.0


Reference = Callable[..., Found]
"""An unexported model: a letterboxed picture uint8 (H, W, 3) RGB to what it finds there.

One that judges proposals is given them too, as float32 (P, 4) in input pixels.
"""

Suppress = Callable[[Floats, Floats, Ints, float], Ints]
"""Boxes (N, 4), scores (N,), classes (N,) and an IoU threshold to the indices kept, best first."""


def find(boxes: Floats, class_scores: Floats, nms_threshold: float, suppress: Suppress) -> Found:
    """The contract's postprocessing of one picture.

    Args:
        boxes: float32 (N, 4) xyxy in input pixels.
        class_scores: float32 (N, C).
        nms_threshold: IoU above which the lower-scoring box of the same class is dropped.
        suppress: the non-maximum suppression to use.
    """
    best = class_scores.max(axis=1)
    by_best = np.argsort(-best, kind="stable")
    entering = by_best[:CANDIDATES]
    cut = float(best[by_best[CANDIDATES]]) if len(best) > CANDIDATES else 0.0
    rows, classes = np.nonzero(class_scores[entering] > SCORE_FLOOR)
    scores = class_scores[entering][rows, classes]
    rows = entering[rows]
    kept = suppress(boxes[rows], scores, classes, nms_threshold)
    if len(kept) > KEPT:
        cut = max(cut, float(scores[kept[KEPT]]))
    kept = kept[:KEPT]
    return Found(boxes[rows][kept], scores[kept], classes[kept], cut)


def rank(boxes: Floats, scores: Floats, classes: Ints) -> Found:
    """The best detections (N,) of a detector that is past suppression, as many as the contract has rows."""
    order = np.argsort(-scores, kind="stable")
    cut = float(scores[order[KEPT]]) if len(order) > KEPT else 0.0
    kept = order[:KEPT]
    kept = kept[scores[kept] > SCORE_FLOOR]
    return Found(boxes[kept], scores[kept], classes[kept].astype(np.int64), cut)


def suppress(boxes: Floats, scores: Floats, classes: Ints, iou_threshold: float) -> Ints:
    """Greedy class-wise non-maximum suppression: the best box drops its rivals, then the next best left does."""
    order = np.argsort(-scores, kind="stable")
    left = np.ones(len(scores), bool)
    for number in np.unique(classes):
        same = order[classes[order] == number]
        rivals = ~(iou(boxes[same], boxes[same]) <= iou_threshold)
        for place, index in enumerate(same):
            if left[index]:
                left[same[place + 1 :][rivals[place, place + 1 :]]] = False
    return order[left[order]]


def iou(first: Floats, second: Floats) -> npt.NDArray[np.float64]:
    """Intersection over union (N, M) of xyxy boxes (N, 4) and (M, 4); 0 where both have no area."""
    one, other = first[:, None].astype(np.float64), second[None].astype(np.float64)
    low, high = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    total = (one[..., 2:] - one[..., :2]).prod(axis=-1) + (other[..., 2:] - other[..., :2]).prod(axis=-1)
    union = total - shared
    ratio: npt.NDArray[np.float64] = np.zeros_like(shared)
    np.divide(shared, union, out=ratio, where=union > 0)
    return ratio
