"""The training loss: SimOTA assignment, then GIoU for boxes and BCE for objectness and class.

Follows YOLOX (arXiv 2107.08430) with two additions for what annotations leave open:

* A cell inside an *ignored* box (a crowd, an object mostly cut off) is not trained as background.
* In a *partial* area, where objects without a box may be, a cell is not trained as background if the
  model already believes in an object there (objectness above ``TRUSTED_OBJECTNESS``) and its box is not
  just a worse copy of an annotated one (IoU below ``COPY_IOU``), or if a teacher sees something there.
  Everything else there still is.

Where a target is *taught*, a cell learns what a stronger detector says of the same pixels besides: soft scores, and
a box (Hinton et al., arXiv 1503.02531).

Knows nothing of data files, optimisers or devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.boxes import paired_giou, pairwise_iou
from models.grid import Grid, decode_boxes
from models.simota import Assignment, assign
from models.target import Target, Taught

BOX_WEIGHT = 5.0
TRUSTED_OBJECTNESS = 0.2
COPY_IOU = 0.3
_SEEN = 0.05
"""Boxes of cells in which a teacher sees less are not learned: it has none there worth the name."""


@dataclass(frozen=True, slots=True)
class Losses:
    """Scalars, each already divided by the number of matched predictions."""

    box: Tensor
    objectness: Tensor
    class_: Tensor
    taught: Tensor | None = None
    """Of the pictures that have a teacher."""

    @property
    def total(self) -> Tensor:
        return sum(self.weighted().values(), torch.zeros_like(self.box))

    def weighted(self) -> dict[str, Tensor]:
        """By name, as they are added."""
        own = {"box": BOX_WEIGHT * self.box, "objectness": self.objectness, "class": self.class_}
        return own if self.taught is None else {**own, "taught": self.taught}


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
    lessons = [target.taught for target in targets if target.taught is not None]
    pupils = [target.taught is not None for target in targets]
    taught = taught_loss(raw[pupils], boxes[pupils], lessons) if lessons else None
    return Losses(box_loss * share, objectness_loss * share, class_loss * share, taught)


def taught_loss(raw: Tensor, boxes: Tensor, taught: Sequence[Taught]) -> Tensor:
    """How far cells are from what they were taught, a sure cell counting 1 in what it is divided by.

    The student's score is objectness times class probability. Its objectness is to be the best of the teacher's
    scores, and its class probabilities their shares of that: the product then is what the teacher says.

    Args:
        raw: float32 (B, N, 5 + C), as in :func:`detection_loss`.
        boxes: float32 (B, N, 4), what ``raw`` means, xyxy in input pixels.
        taught: of the B pictures.
    """
    scores = torch.stack([each.scores for each in taught])
    wanted_boxes = torch.stack([each.boxes for each in taught])
    objectness = scores.amax(-1)
    shares = scores / objectness.clamp(min=1e-6)[..., None]
    seen = objectness > _SEEN
    sureness = objectness[seen]
    loss = functional.binary_cross_entropy_with_logits(raw[..., 4], objectness, reduction="sum")
    classes = functional.binary_cross_entropy_with_logits(raw[..., 5:][seen], shares[seen], reduction="none")
    loss = loss + (classes.sum(-1) * sureness).sum()
    loss = loss + BOX_WEIGHT * ((1 - paired_giou(boxes[seen], wanted_boxes[seen])) * sureness).sum()
    return loss / sureness.sum().clamp(min=1.0)


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
        if target.taught is not None:
            trusted |= target.taught.scores.amax(-1) > _SEEN
        open_ = open_ | (trusted & _inside_any(where.centres, target.partial))
    return ~open_


def _inside_any(points: Tensor, boxes: Tensor) -> Tensor:
    """bool (N,): whether each point (N, 2) lies in any box (K, 4)."""
    inside = (points[:, None] > boxes[None, :, :2]) & (points[:, None] < boxes[None, :, 2:])
    return inside.all(-1).any(1)
