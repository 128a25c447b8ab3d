"""OverFeat's greedy merging of boxes (Sermanet et al. 2014, arXiv 1312.6229, section 4.3).

Non-maximum suppression keeps the best of several boxes; this averages them and adds up their scores, so that
what many windows agree on rises above what one window was sure of. It is done on the host: how many boxes
stay depends on the boxes, which no fixed graph can say. Exported files suppress instead, as the contract
has it.

The paper's match score is "the sum of the distance between centers of the two bounding boxes and the
intersection area of the boxes", and the pair with the *least* score is merged. Taken to the letter, equal
boxes would match worst. Here the second term is the intersection that is *missing*, and both have no unit,
so that one threshold fits small boxes and large ones:

    distance of the centres / mean side  +  1 - intersection / mean area        0 for equal boxes

Knows nothing of models.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.boxes import area, paired_intersection

MATCH_THRESHOLD = 0.6
"""Boxes at or below this match score become one. The paper's own threshold is not published."""


def match_scores(boxes: Tensor) -> Tensor:
    """How badly each pair of boxes (N, 4) matches: (N, N), 0 for equal ones."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    intersection = paired_intersection(boxes[:, None], boxes[None])  # (N, N)
    areas = area(boxes).clamp(min=1e-7)
    mean_area = (areas[:, None] + areas[None]) / 2
    # Not torch.cdist, which loses digits where boxes are far from the origin and near to each other.
    distance = (centres[:, None] - centres[None]).square().sum(-1).sqrt()
    return distance / mean_area.sqrt() + 1 - intersection / mean_area


def merge(boxes: Tensor, scores: Tensor, threshold: float = MATCH_THRESHOLD) -> tuple[Tensor, Tensor]:
    """Merge the two boxes that match best, again and again, until no pair matches well enough.

    Two boxes become the average of their coordinates, as the paper says: a box that was merged before
    weighs no more than one that was not. Scores are added.

    Args:
        boxes: float32 (N, 4) of one class, from every scale and place.
        scores: float32 (N,).
        threshold: the largest match score of two boxes that are merged.

    Returns:
        boxes float32 (M, 4) and scores float32 (M,), best first; scores may exceed 1.
    """
    boxes, scores = boxes.clone(), scores.clone()
    apart = match_scores(boxes).fill_diagonal_(torch.inf)
    alive = torch.ones(len(boxes), dtype=torch.bool)
    while alive.sum() > 1:
        nearest = int(apart.argmin())
        first, second = divmod(nearest, len(boxes))
        if apart[first, second] > threshold:
            break
        boxes[first] = (boxes[first] + boxes[second]) / 2
        scores[first] += scores[second]
        alive[second] = False
        apart[second], apart[:, second] = torch.inf, torch.inf
        others = alive.nonzero()[:, 0]
        row = match_scores(torch.cat([boxes[first : first + 1], boxes[others]]))[0, 1:]
        row[others == first] = torch.inf
        apart[first, others], apart[others, first] = row, row
    order = scores[alive].argsort(descending=True, stable=True)
    return boxes[alive][order], scores[alive][order]


def merged_detections(
    boxes: Tensor,
    class_scores: Tensor,
    score_threshold: float,
    threshold: float = MATCH_THRESHOLD,
    limit: int = 300,
) -> tuple[Tensor, Tensor, Tensor]:
    """The objects in one picture, best first: as :func:`models.postprocess.detections`, but merged.

    Args:
        boxes: float32 (N, 4), xyxy in input pixels, of all windows of all scales.
        class_scores: float32 (N, C), 0 to 1.
        score_threshold: windows that score less say nothing.
        threshold: see :func:`merge`.
        limit: of each class, at most so many windows take part, the best.

    Returns:
        boxes float32 (K, 4), scores float32 (K,), which may exceed 1, classes int64 (K,).
    """
    found_boxes, found_scores, found_classes = [boxes[:0]], [class_scores[:0, 0]], [torch.zeros(0).long()]
    for class_ in range(class_scores.shape[1]):
        scores, rows = class_scores[:, class_].sort(descending=True, stable=True)
        rows = rows[scores > score_threshold][:limit]
        kept_boxes, kept_scores = merge(boxes[rows], class_scores[rows, class_], threshold)
        found_boxes.append(kept_boxes)
        found_scores.append(kept_scores)
        found_classes.append(torch.full((len(kept_scores),), class_))
    scores = torch.cat(found_scores)
    order = scores.argsort(descending=True, stable=True)
    return torch.cat(found_boxes)[order], scores[order], torch.cat(found_classes)[order]
