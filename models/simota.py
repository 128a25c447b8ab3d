"""SimOTA label assignment (YOLOX, arXiv 2107.08430, section 2.2; OTA, arXiv 2103.14259).

For one picture, decides which predictions are trained towards which ground-truth box. Each box takes
its k cheapest predictions, k being how much overlap it already attracts.
Knows nothing of losses beyond the cost it ranks by.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.boxes import pairwise_iou

CENTRE_RADIUS = 2.5
"""In strides: how far from a box's centre a prediction's cell may be."""
_TOP_OVERLAPS = 10
_IOU_WEIGHT = 3.0
_FAR = 1e5
"""Added where a cell is not both inside the box and near its centre: taken only as a last resort."""
_IMPOSSIBLE = 1e8


@dataclass(frozen=True, slots=True)
class Assignment:
    """P matched predictions of one picture."""

    predictions: Tensor
    """int64 (P,): indices of predictions, each at most once."""
    targets: Tensor
    """int64 (P,): the ground-truth box of each."""
    ious: Tensor
    """float (P,): overlap of each prediction with its box."""


@torch.no_grad()
def assign(
    boxes: Tensor,
    class_scores: Tensor,
    centres: Tensor,
    strides: Tensor,
    target_boxes: Tensor,
    target_classes: Tensor,
) -> Assignment:
    """Match predictions to the boxes of one picture.

    Args:
        boxes: float32 (N, 4) predicted, xyxy in input pixels.
        class_scores: float32 (N, C), objectness times class probability, 0 to 1.
        centres: float32 (N, 2) cell centres in input pixels.
        strides: float32 (N, 1) input pixels a cell.
        target_boxes: float32 (M, 4) ground truth, xyxy in input pixels.
        target_classes: int64 (M,).
    """
    eligible, preferred = _eligible(centres, strides, target_boxes)
    rows = eligible.any(0).nonzero().squeeze(1)  # (R,)
    ious = pairwise_iou(target_boxes, boxes[rows])  # (M, R)
    cost = _class_cost(class_scores[rows], target_classes) - _IOU_WEIGHT * (ious + 1e-8).log()
    cost = cost + _FAR * ~preferred[:, rows] + _IMPOSSIBLE * ~eligible[:, rows]
    matched = _cheapest(cost, ious) & eligible[:, rows]  # (M, R)
    contested = matched.sum(0) > 1
    if contested.any():
        winner = cost[:, contested].argmin(0)
        matched[:, contested] = False
        matched[winner, contested.nonzero().squeeze(1)] = True
    targets, columns = matched.nonzero(as_tuple=True)
    return Assignment(rows[columns], targets, ious[targets, columns])


def _eligible(centres: Tensor, strides: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Which cells (M, N) lie inside a box or near its centre, and which do both."""
    low, high = target_boxes[:, None, :2], target_boxes[:, None, 2:]
    inside = ((centres > low) & (centres < high)).all(-1)
    near = ((centres - (low + high) / 2).abs() < CENTRE_RADIUS * strides).all(-1)
    return inside | near, inside & near


def _class_cost(class_scores: Tensor, target_classes: Tensor) -> Tensor:
    """Binary cross-entropy (M, R), summed over classes, of predictions (R, C) against each box's class."""
    probability = class_scores.sqrt().clamp(1e-6, 1 - 1e-6)  # YOLOX takes the root of the product
    absent = -(1 - probability).log()
    one_hot = functional.one_hot(target_classes, class_scores.shape[1]).to(probability.dtype)
    present_instead = -probability.log() - absent
    return absent.sum(1)[None] + one_hot @ present_instead.T


def _cheapest(cost: Tensor, ious: Tensor) -> Tensor:
    """bool (M, R): the k cheapest of each row, k its summed best overlaps, at least one."""
    count = min(_TOP_OVERLAPS, ious.shape[1])
    wanted = ious.topk(count, 1).values.sum(1).int().clamp(min=1, max=count)  # (M,)
    order = cost.topk(count, 1, largest=False).indices
    taken = torch.arange(count, device=cost.device)[None] < wanted[:, None]
    return torch.zeros_like(cost, dtype=torch.bool).scatter_(1, order, taken)
