"""SimOTA label assignment (YOLOX, arXiv 2107.08430, section 2.2; OTA, arXiv 2103.14259).

Decides which predictions are trained towards which ground-truth box. Each box takes its k cheapest
predictions, k being how much overlap it already attracts. A batch goes through at once: on a GPU, one
picture after another would leave it waiting for the next instruction most of the time.
Knows nothing of losses beyond the cost it ranks by.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CENTRE_RADIUS = 2.5
"""In strides: how far from a box's centre a prediction's cell may be."""
_TOP_OVERLAPS = 10
_IOU_WEIGHT = 3.0
_FAR = 1e5
"""Added where a cell is not both inside the box and near its centre: taken only as a last resort."""
_IMPOSSIBLE = 1e8


@dataclass(frozen=True, slots=True)
class Assignment:
    """P matched predictions of a batch."""

    predictions: Tensor
    """int64 (P,): indices of predictions in their pictures, each at most once."""
    targets: Tensor
    """int64 (P,): the ground-truth box of each."""
    ious: Tensor
    """float (P,): overlap of each prediction with its box."""


@torch.no_grad()
def assign(
    ious: Tensor,
    class_scores: Tensor,
    centres: Tensor,
    strides: Tensor,
    target_boxes: Tensor,
    target_classes: Tensor,
    pictures: Tensor,
) -> Assignment:
    """Match predictions to the boxes of their pictures.

    Args:
        ious: float32 (M, N): overlap of each ground-truth box with each prediction of its picture.
        class_scores: float32 (B, N, C), objectness times class probability, 0 to 1.
        centres: float32 (N, 2) cell centres in input pixels.
        strides: float32 (N, 1) input pixels a cell.
        target_boxes: float32 (M, 4) ground truth of all pictures, xyxy in input pixels.
        target_classes: int64 (M,).
        pictures: int64 (M,): which of the B pictures each is of.
    """
    eligible, preferred = _eligible(centres, strides, target_boxes)
    anyones = of_pictures(eligible, pictures, len(class_scores))[pictures]  # (M, N)
    ious = ious * anyones  # others are in no one's reach and raise no one's k
    cost = _class_cost(class_scores, target_classes, pictures) - _IOU_WEIGHT * (ious + 1e-8).log()
    cost = cost + _FAR * ~preferred + _IMPOSSIBLE * ~eligible
    matched = _cheapest(cost, ious) & eligible
    bids = torch.zeros((len(class_scores), cost.shape[1]), dtype=torch.int32, device=cost.device)
    contested = bids.index_add_(0, pictures, matched.int()) > 1  # (B, N)
    cheapest = torch.full_like(bids, torch.inf, dtype=cost.dtype)
    cheapest.scatter_reduce_(0, pictures[:, None].expand_as(cost), cost, "amin")
    own = torch.arange(len(cost), device=cost.device)[:, None].expand_as(cost)
    bidders = own.masked_fill(
        cost != cheapest[pictures], len(cost)
    )  # equal boxes cost the same: the first has it
    winner = torch.full_like(bids, len(cost), dtype=torch.int64)
    winner.scatter_reduce_(0, pictures[:, None].expand_as(own), bidders, "amin")
    matched = torch.where(contested[pictures], own == winner[pictures], matched)
    targets, predictions = matched.nonzero(as_tuple=True)
    return Assignment(predictions, targets, ious[targets, predictions])


def of_pictures(rows: Tensor, pictures: Tensor, count: int) -> Tensor:
    """bool (count, N): in which columns any of a picture's rows (M, N) is true.

    Args:
        pictures: int64 (M,): which picture each row is of.
    """
    found = torch.zeros((count, rows.shape[1]), dtype=torch.int32, device=rows.device)
    return found.index_add_(0, pictures, rows.int()) > 0


def _eligible(centres: Tensor, strides: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Which cells (M, N) lie inside a box or near its centre, and which do both."""
    low, high = target_boxes[:, None, :2], target_boxes[:, None, 2:]
    inside = ((centres > low) & (centres < high)).all(-1)
    near = ((centres - (low + high) / 2).abs() < CENTRE_RADIUS * strides).all(-1)
    return inside | near, inside & near


def _class_cost(class_scores: Tensor, target_classes: Tensor, pictures: Tensor) -> Tensor:
    """Binary cross-entropy (M, N), summed over classes, of each picture's predictions against each box's class."""
    probability = class_scores.sqrt().clamp(1e-6, 1 - 1e-6)  # YOLOX takes the root of the product
    absent = -(1 - probability).log()  # (B, N, C)
    present_instead = -probability.log() - absent
    return absent.sum(-1)[pictures] + present_instead.movedim(-1, 1)[pictures, target_classes]


def _cheapest(cost: Tensor, ious: Tensor) -> Tensor:
    """bool (M, N): the k cheapest of each row, k its summed best overlaps, at least one."""
    count = min(_TOP_OVERLAPS, ious.shape[1])
    wanted = ious.topk(count, 1).values.sum(1).int().clamp(min=1, max=count)  # (M,)
    order = cost.topk(count, 1, largest=False).indices
    taken = torch.arange(count, device=cost.device)[None] < wanted[:, None]
    return torch.zeros_like(cost, dtype=torch.bool).scatter_(1, order, taken)
