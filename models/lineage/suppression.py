"""Non-maximum suppression of a batch as a mask of constant shape, quick enough for thousands of boxes.

Exported it becomes ONNX NonMaxSuppression. ``models.boxes.nms`` is the slow reference. Knows nothing of
models.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.boxes import pairwise_iou

_BLOCK = 256


def suppress(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    """Which boxes greedy suppression keeps, the ``limit`` best of each picture at most.

    Args:
        boxes: float (B, N, 4), xyxy.
        scores: float (B, N).
        iou_threshold: a box is dropped where its IoU with a kept, better box is above this.
        limit: once so many are kept, the rest is dropped.

    Returns:
        bool (B, N).
    """
    kept: Tensor = torch.ops.lookout.suppress(boxes.detach(), scores.detach(), iou_threshold, limit)
    return kept


@torch.library.custom_op("lookout::suppress", mutates_args=())
def _suppress(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for picture, order in enumerate(scores.argsort(dim=1, descending=True, stable=True)):
        found = _kept(boxes[picture, order].float(), iou_threshold, limit)
        kept[picture, order[found]] = True
    return kept


@_suppress.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def _kept(boxes: Tensor, iou_threshold: float, limit: int) -> Tensor:
    """The indices (K,) kept of boxes (N, 4), best first; block after block, each against those kept so far."""
    found = torch.zeros(0, dtype=torch.int64, device=boxes.device)
    for start in range(0, len(boxes), _BLOCK):
        block = torch.arange(start, min(start + _BLOCK, len(boxes)), device=boxes.device)
        rivalled = (pairwise_iou(boxes[block], boxes[found]) > iou_threshold).any(1)
        block = block[~rivalled]
        found = torch.cat([found, block[_kept_of_block(boxes[block], iou_threshold)]])
        if len(found) >= limit:
            break
    return found[:limit]


def _kept_of_block(boxes: Tensor, iou_threshold: float) -> Tensor:
    """bool (N,): the boxes that no kept, better one overlaps, found by repeating that sentence.

    Each repetition settles at least one more box, and in practice many: chains of overlaps are short.
    """
    overlaps = (pairwise_iou(boxes, boxes) > iou_threshold).triu(1)
    kept = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    while True:
        settled = ~(overlaps & kept[:, None]).any(0)
        if torch.equal(settled, kept):
            return kept
        kept = settled
