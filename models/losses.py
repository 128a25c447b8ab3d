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

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.boxes import paired_giou, paired_iou
from models.grid import Grid, decode_boxes
from models.simota import assign, of_pictures
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
    truth, pictures = _together([target.boxes for target in targets])  # (M, 4), (M,)
    classes = torch.cat([target.classes for target in targets])
    with torch.no_grad():
        ious = paired_iou(truth[:, None], boxes[pictures])  # (M, N)
        scores = raw[..., 4:5].sigmoid() * raw[..., 5:].sigmoid()
    found = assign(ious, scores, where.centres, where.strides, truth, classes, pictures)
    rows = pictures[found.targets], found.predictions
    objectness = torch.zeros_like(raw[..., 4])
    objectness[rows] = 1.0
    counted = _counted(raw, ious, pictures, where, targets) | (objectness > 0)
    objectness_loss = functional.binary_cross_entropy_with_logits(
        raw[..., 4], objectness, weight=counted.float(), reduction="sum"
    )
    box_loss = (1 - paired_giou(boxes[rows], truth[found.targets])).sum()
    wanted = functional.one_hot(classes[found.targets], raw.shape[2] - 5) * found.ious[:, None]
    class_loss = functional.binary_cross_entropy_with_logits(raw[..., 5:][rows], wanted, reduction="sum")
    share = 1 / max(1, len(found.predictions))
    pupils, lessons = _lessons(targets)
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
    seen = (objectness > _SEEN).nonzero(as_tuple=True)  # once: a GPU is waited for to count them
    sureness = objectness[seen]
    loss = functional.binary_cross_entropy_with_logits(raw[..., 4], objectness, reduction="sum")
    classes = functional.binary_cross_entropy_with_logits(raw[..., 5:][seen], shares[seen], reduction="none")
    loss = loss + (classes.sum(-1) * sureness).sum()
    loss = loss + BOX_WEIGHT * ((1 - paired_giou(boxes[seen], wanted_boxes[seen])) * sureness).sum()
    return loss / sureness.sum().clamp(min=1.0)


@torch.no_grad()
def _counted(raw: Tensor, ious: Tensor, pictures: Tensor, where: Grid, targets: list[Target]) -> Tensor:
    """bool (B, N): the cells that are background unless they are matched.

    Args:
        ious, pictures: (M, N) and (M,), as in :func:`models.simota.assign`.
    """
    open_ = _inside_any(where.centres, [target.ignored for target in targets])
    if any(len(target.partial) for target in targets):
        trusted = raw[..., 4].sigmoid() > TRUSTED_OBJECTNESS
        trusted &= ~of_pictures(ious >= COPY_IOU, pictures, len(raw))
        pupils, lessons = _lessons(targets)
        if lessons:
            trusted[pupils] |= torch.stack([each.scores for each in lessons]).amax(-1) > _SEEN
        open_ |= trusted & _inside_any(where.centres, [target.partial for target in targets])
    return ~open_


def _lessons(targets: Sequence[Target]) -> tuple[list[int], list[Taught]]:
    """Which pictures have a teacher, and what it says."""
    found = [(picture, target.taught) for picture, target in enumerate(targets) if target.taught is not None]
    return [picture for picture, _ in found], [lesson for _, lesson in found]


def _inside_any(points: Tensor, boxes: Sequence[Tensor]) -> Tensor:
    """bool (B, N): whether each point (N, 2) lies in any of a picture's boxes, B times (K, 4)."""
    all_, pictures = _together(boxes)
    inside = (points > all_[:, None, :2]) & (points < all_[:, None, 2:])
    return of_pictures(inside.all(-1), pictures, len(boxes))


def _together(boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """All pictures' boxes (M, 4), and which picture each is of (M,)."""
    pictures = np.repeat(np.arange(len(boxes)), [len(each) for each in boxes])
    return torch.cat(list(boxes)), torch.from_numpy(pictures).to(boxes[0].device)
