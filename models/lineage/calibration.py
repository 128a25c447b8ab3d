"""From a class's scores to probabilities: how often what is found with such a score is right (Platt 1999).

Of what is found in the training pictures, after the suppression that the detector runs with: before it, every
object's second and third boxes count as mistakes that nobody sees. Knows nothing of what made the scores.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from models.boxes import nms, pairwise_iou
from models.lineage.mining import Scene
from models.lineage.platt import fit_platt
from models.target import in_ignored

_DETECTIONS = 30
"""Of each picture at most so many count, the best."""
_LEAST_SLOPE = 0.01
"""However poor a detector is, a higher score is not less likely to be right."""


class Judged(NamedTuple):
    """What is found of a class in a picture."""

    scores: Tensor
    """float32 (K,)."""
    right: Tensor
    """bool (K,): the first to overlap an object by half or more. None of the others is in an ignored area."""


class Curve(NamedTuple):
    """A score's probability is ``sigmoid(slope * score + offset)``."""

    slope: float
    offset: float
    right: int
    """Detections that it was fitted to, and"""
    wrong: int


def judge(scene: Scene, class_: int, boxes: Tensor, scores: Tensor, nms_threshold: float) -> Judged:
    """The best detections of a class in a picture.

    Args:
        scene: the picture.
        class_: the class.
        boxes: float32 (N, 4), in input pixels; there may be none.
        scores: float32 (N,).
        nms_threshold: of two that overlap by more, the better one is found.
    """
    best = scores.topk(min(len(scores), 20 * _DETECTIONS)).indices
    zeros = torch.zeros(len(best), dtype=torch.int64)
    rows = best[nms(boxes[best], scores[best], zeros, nms_threshold)[:_DETECTIONS]]
    objects = scene.of_class(class_)
    right = torch.zeros(len(rows), dtype=torch.bool)
    if len(objects) and len(rows):
        overlaps = pairwise_iou(boxes[rows], objects)  # (K, M)
        right[(overlaps >= 0.5).float().argmax(0)[overlaps.amax(0) >= 0.5]] = True
    known = right | ~in_ignored(boxes[rows], scene.ignored)
    return Judged(scores[rows][known], right[known])


def curve_of(pictures: Iterable[Judged]) -> Curve:
    """The curve that fits what was found in all of them."""
    scores, right = (torch.cat(parts) for parts in zip(*pictures, strict=True))
    slope, offset = fit_platt(scores, right)
    return Curve(max(slope, _LEAST_SLOPE), offset, int(right.sum()), int((~right).sum()))
