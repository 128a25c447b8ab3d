"""The training loss: SimOTA assignment, then GIoU for boxes and BCE for objectness and class.

Follows YOLOX (arXiv 2107.08430) with two additions for what annotations leave open:

* A cell inside an *ignored* box (a crowd, an object mostly cut off) is not trained as background.
* In a *partial* area, where objects without a box may be, a cell is not trained as background if the
  model already believes in an object there (objectness above ``TRUSTED_OBJECTNESS``) and its box is not
  just a worse copy of an annotated one (IoU below ``COPY_IOU``). Everything else there still is.

Knows nothing of data files, optimisers or devices.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.boxes import paired_giou, pairwise_iou
from models.grid import Grid, decode_boxes
from models.simota import Assignment, assign
from models.target import Target

BOX_WEIGHT = 5.0
TRUSTED_OBJECTNESS = 0.2
COPY_IOU = 0.3


@dataclass(frozen=True, slots=True)
class Losses:
    """Scalars, each already divided by the number of matched predictions."""

    box: Tensor
    objectness: Tensor
    class_: Tensor

    @property
    def total(self) -> Tensor:
        return sum(self.weighted().values(), torch.zeros_like(self.box))

    def weighted(self) -> dict[str, Tensor]:
        """By name, as they are added."""
        return {"box": BOX_WEIGHT * self.box, "objectness": self.objectness, "class": self.class_}


def detection_loss(raw: Tensor, where: Grid, targets: list[Target]) -> Losses:
    """The loss of a batch.

    Args:
        raw: float32 (B, N, 5 + C) as :class:`models.yolox.Yolox` returns it.
        where: the cells of this input size.
        targets: B pictures' ground truth.
    """
    boxes = decode_boxes(raw, where)  # (B, N, 4)
    box_loss, class_loss, objectness_loss = raw.new_zeros(3).unbind()
    matched = 0
    for picture, target in enumerate(targets):
        one, one_boxes = raw[picture], boxes[picture]
        assignment = _assign(one, one_boxes, where, target)
        rows, ious = assignment.predictions, assignment.ious
        objectness = torch.zeros_like(one[:, 4])
        objectness[rows] = 1.0
        counted = _counted(one, one_boxes, where, target) | (objectness > 0)
        objectness_loss = objectness_loss + functional.binary_cross_entropy_with_logits(
            one[counted, 4], objectness[counted], reduction="sum"
        )
        wanted_boxes = target.boxes[assignment.targets]
        box_loss = box_loss + (1 - paired_giou(one_boxes[rows], wanted_boxes)).sum()
        wanted = functional.one_hot(target.classes[assignment.targets], raw.shape[2] - 5) * ious[:, None]
        class_loss = class_loss + functional.binary_cross_entropy_with_logits(
            one[rows, 5:], wanted, reduction="sum"
        )
        matched += len(rows)
    share = 1 / max(1, matched)
    return Losses(box_loss * share, objectness_loss * share, class_loss * share)


def _assign(raw: Tensor, boxes: Tensor, where: Grid, target: Target) -> Assignment:
    if len(target.boxes) == 0:
        none = torch.zeros(0, dtype=torch.int64, device=raw.device)
        return Assignment(none, none, raw.new_zeros(0))
    scores = raw[:, 4:5].sigmoid() * raw[:, 5:].sigmoid()
    return assign(boxes, scores, where.centres, where.strides, target.boxes, target.classes)


@torch.no_grad()
def _counted(raw: Tensor, boxes: Tensor, where: Grid, target: Target) -> Tensor:
    """bool (N,): the cells that are background unless they are matched."""
    open_ = _inside_any(where.centres, target.ignored)
    if len(target.partial):
        trusted = raw[:, 4].sigmoid() > TRUSTED_OBJECTNESS
        if len(target.boxes):
            trusted &= (pairwise_iou(boxes, target.boxes) < COPY_IOU).all(1)
        open_ = open_ | (trusted & _inside_any(where.centres, target.partial))
    return ~open_


def _inside_any(points: Tensor, boxes: Tensor) -> Tensor:
    """bool (N,): whether each point (N, 2) lies in any box (K, 4)."""
    inside = (points[:, None] > boxes[None, :, :2]) & (points[:, None] < boxes[None, :, 2:])
    return inside.all(-1).any(1)
