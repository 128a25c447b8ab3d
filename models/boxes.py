"""Box arithmetic in tensors, and the reference non-maximum suppression.

Boxes are xyxy unless the name says otherwise; any unit will do as long as it is one.
Knows nothing of models, pictures or files.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EPSILON = 1e-7


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Centre and size (..., 4) to corners (..., 4)."""
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def area(boxes: Tensor) -> Tensor:
    """Areas (...) of boxes (..., 4)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def paired_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union (...) of boxes (..., 4) and (..., 4), pair by pair."""
    intersection, union = _intersection_and_union(first, second)
    return intersection / (union + _EPSILON)


def paired_giou(first: Tensor, second: Tensor) -> Tensor:
    """Generalised IoU (...) in -1..1 (arXiv 1902.09630) of boxes (..., 4) and (..., 4), pair by pair."""
    intersection, union = _intersection_and_union(first, second)
    low = torch.minimum(first[..., :2], second[..., :2])
    high = torch.maximum(first[..., 2:], second[..., 2:])
    hull = (high - low).prod(-1)
    return intersection / (union + _EPSILON) - (hull - union) / (hull + _EPSILON)


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union (N, M) of boxes (N, 4) with boxes (M, 4)."""
    return paired_iou(first[:, None], second[None])


def paired_intersection(first: Tensor, second: Tensor) -> Tensor:
    """Areas (...) that boxes (..., 4) and (..., 4) share, pair by pair."""
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    return (high - low).clamp(min=0).prod(-1)


def covered(boxes: Tensor, by: Tensor) -> Tensor:
    """How much of each box (N, 4) lies in each of others (M, 4): (N, M), 0 to 1."""
    return paired_intersection(boxes[:, None], by[None]) / (area(boxes)[:, None] + _EPSILON)


def _intersection_and_union(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    intersection = paired_intersection(first, second)
    return intersection, area(first) + area(second) - intersection


def nms(boxes: Tensor, scores: Tensor, classes: Tensor, iou_threshold: float) -> Tensor:
    """The indices kept by greedy class-wise suppression, best score first.

    A box is dropped where its IoU with a kept, better box of its own class is above the threshold.
    This is the plain reference: one pass, one box at a time.

    Args:
        boxes: float (N, 4).
        scores: float (N,).
        classes: int64 (N,).
        iou_threshold: 0 to 1.

    Returns:
        int64 (K,) indices into ``boxes``.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    overlaps = pairwise_iou(boxes[order], boxes[order]) > iou_threshold
    overlaps &= classes[order][:, None] == classes[order][None]
    alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    kept = []
    for rank in range(len(order)):
        if alive[rank]:
            kept.append(rank)
            alive &= ~overlaps[rank]
    return order[torch.tensor(kept, dtype=torch.int64, device=boxes.device)]
