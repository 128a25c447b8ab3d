"""The region proposal network of Faster R-CNN (Ren et al., arXiv 1506.01497): boxes that hold some object.

A small convolution slides over the map; at each cell it says of every anchor how likely it holds an object
and how to improve its box. Over a feature pyramid (arXiv 1612.03144) the same layers run on every level.
Object or not is one logit with a sigmoid where the paper has two with a softmax, which is the same model.
Knows nothing of classes or of what is done with proposals.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.lineage.anchors import anchors, cell_anchors
from models.lineage.box_coding import clip, decode, encode
from models.lineage.regions import Sample, match_anchors, sample
from models.lineage.suppression import suppress
from models.target import Target

SAMPLED = 256
OBJECT_SHARE = 0.5
NMS_THRESHOLD = 0.7
_BETA = 1 / 9
"""Where the smooth L1 loss turns linear: the paper's code squares three times the difference."""
_MIN_SIDE = 1e-3


@dataclass(frozen=True, slots=True)
class Proposing:
    """How many boxes the network proposes, and around what."""

    sizes: tuple[tuple[int, ...], ...]
    """Of the anchors in input pixels, for each map."""
    ratios: tuple[float, ...]
    """Of the anchors, heights by widths."""
    entering: int
    """The best boxes of each map that enter suppression,"""
    count: int
    """and how many are left in all."""
    entering_training: int
    count_training: int
    strides: tuple[int, ...] = ()
    """Of the maps; none: the picture's size by the map's, rounded down."""
    centre: float = 0.5
    """Where in its cell an anchor's centre is; see :func:`models.lineage.anchors.anchors`."""
    crossing: bool = False
    """Whether anchors that cross the picture's border learn: in the pyramid's paper; before, they did not."""


class RpnHead(nn.Module):
    """Named as in torchvision's checkpoints.

    Args:
        channels: of the maps.
        width: of the sliding convolution.
        anchors_per_cell: A.
    """

    def __init__(self, channels: int, width: int, anchors_per_cell: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()))
        self.cls_logits = nn.Conv2d(width, anchors_per_cell, 1)
        self.bbox_pred = nn.Conv2d(width, 4 * anchors_per_cell, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)  # the paper, section 3.1.3
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """A map (B, channels, h, w) to object logits (B, h * w * A) and deltas (B, h * w * A, 4)."""
        x = self.conv(features)
        logits = self.cls_logits(x).permute(0, 2, 3, 1).flatten(1)
        deltas = self.bbox_pred(x).permute(0, 2, 3, 1).flatten(1)
        return logits, deltas.view(features.shape[0], -1, 4)


@dataclass(frozen=True, slots=True)
class Proposed:
    """What the network says of every anchor; a list has an element a map."""

    anchors: list[Tensor]
    """float32 (N, 4)."""
    logits: list[Tensor]
    """float32 (B, N)."""
    deltas: list[Tensor]
    """float32 (B, N, 4)."""


class Rpn(nn.Module):
    """The head and its anchors."""

    def __init__(self, channels: int, width: int, plan: Proposing) -> None:
        super().__init__()
        self.plan = plan
        self.head = RpnHead(channels, width, len(plan.sizes[0]) * len(plan.ratios))

    def forward(self, maps: list[Tensor], height: int, width: int) -> Proposed:
        """What is said of the anchors of maps (B, channels, h, w) of pictures of height x width."""
        said = [self.head(features) for features in maps]
        return Proposed(
            [self._anchors(features, level, height, width) for level, features in enumerate(maps)],
            [logits.float() for logits, _ in said],
            [deltas.float() for _, deltas in said],
        )

    def _anchors(self, features: Tensor, level: int, height: int, width: int) -> Tensor:
        plan, (rows, columns) = self.plan, features.shape[2:]
        steps = (plan.strides[level],) * 2 if plan.strides else (height // rows, width // columns)
        around = cell_anchors(plan.sizes[level], plan.ratios).to(features.device)
        return anchors(around, rows, columns, steps, plan.centre)

    def proposals(self, proposed: Proposed, height: int, width: int) -> tuple[Tensor, Tensor]:
        """The boxes to look at, best first.

        Returns:
            float32 (B, count, 4), xyxy in the picture, and their scores float32 (B, count), 0 to 1. Where
            suppression leaves fewer, the rest are boxes without area, of score 0. No gradient.
        """
        plan = self.plan
        entering = plan.entering_training if self.training else plan.entering
        count = plan.count_training if self.training else plan.count
        found = []
        for where, logits, deltas in zip(proposed.anchors, proposed.logits, proposed.deltas, strict=True):
            logits, deltas = logits.detach(), deltas.detach()
            best, rows = logits.topk(min(entering, logits.shape[1]), 1)
            ways = deltas.gather(1, rows[:, :, None].expand(-1, -1, 4))
            boxes = clip(decode(ways, where[rows]), height, width)  # (B, entering, 4)
            scores = torch.where(_sized(boxes), best.sigmoid(), 0.0)
            kept = suppress(boxes, scores, NMS_THRESHOLD, count)
            found.append((boxes, torch.where(kept, scores, 0.0)))
        boxes, scores = torch.cat([boxes for boxes, _ in found], 1), torch.cat([one for _, one in found], 1)
        scores, rows = scores.topk(min(count, scores.shape[1]), 1)
        boxes = boxes.gather(1, rows[:, :, None].expand(-1, -1, 4))
        return torch.where(scores[:, :, None] > 0, boxes, 0.0), scores

    def losses(self, proposed: Proposed, targets: list[Target], height: int, width: int) -> dict[str, Tensor]:
        """Log loss of object or not, smooth L1 of the objects' boxes; both by the number of samples."""
        where = torch.cat(proposed.anchors)
        logits, deltas = torch.cat(proposed.logits, 1), torch.cat(proposed.deltas, 1)
        samples = [self._sample(where, target, height, width) for target in targets]
        share = 1 / max(1, sum(len(one.rows) for one in samples))
        objectness, box = logits.new_zeros(2).unbind()
        for picture, (one, target) in enumerate(zip(samples, targets, strict=True)):
            is_object = torch.zeros_like(one.rows, dtype=logits.dtype)
            is_object[: len(one.objects)] = 1
            objectness = objectness + functional.binary_cross_entropy_with_logits(
                logits[picture, one.rows], is_object, reduction="sum"
            )
            wanted = encode(target.boxes[one.matched], where[one.objects])
            box = box + functional.smooth_l1_loss(
                deltas[picture, one.objects], wanted, reduction="sum", beta=_BETA
            )
        return {"objectness": objectness * share, "proposal": box * share}

    def _sample(self, where: Tensor, target: Target, height: int, width: int) -> Sample:
        if self.plan.crossing:
            return sample(match_anchors(where, target), SAMPLED, OBJECT_SHARE)
        inside = (where == clip(where, height, width)).all(1)
        matches = torch.full((len(where),), -2, device=where.device)
        matches[inside] = match_anchors(where[inside], target)
        return sample(matches, SAMPLED, OBJECT_SHARE)


def _sized(boxes: Tensor) -> Tensor:
    """bool (...): whether boxes (..., 4) have a width and a height at all."""
    return ((boxes[..., 2:] - boxes[..., :2]) >= _MIN_SIDE).all(-1)
