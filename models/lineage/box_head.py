"""The end of Fast R-CNN (arXiv 1504.08083): of each region its class and, for each class, a better box.

Knows nothing of where regions come from or what computes their features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.lineage.box_coding import NORMALISED, clip, decode, encode
from models.lineage.regions import Sample, match_regions, sample
from models.target import Target

_CANDIDATES = 1000
"""Of many regions times many classes, so many pairs leave the detector."""
_MIN_SIDE = 0.01


class BoxPredictor(nn.Module):
    """Two linear layers side by side, named as in torchvision's checkpoints.

    Args:
        channels: of a region's features.
        classes: C; row 0 of both outputs is the background's.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(channels, classes + 1)
        self.bbox_pred = nn.Linear(channels, 4 * (classes + 1))
        for layer, deviation in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):  # the paper, section 2.3
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (R, channels) to class logits (R, 1 + C) and deltas (R, 1 + C, 4)."""
        deltas: Tensor = self.bbox_pred(features)
        return self.cls_score(features), torch.unflatten(deltas, 1, (-1, 4))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the regions of a batch should have been."""

    classes: Tensor
    """int64 (R,): 0 is background, c + 1 is class c."""
    deltas: Tensor
    """float32 (R, 4): the way to the ground truth; 0 for background."""


def wanted(regions: Tensor, chosen: Sample, target: Target) -> Wanted:
    """Of one picture's sampled regions.

    Args:
        regions: float32 (R, 4), those of ``chosen.rows`` in that order.
    """
    objects = len(chosen.objects)
    classes = torch.zeros(len(regions), dtype=torch.int64, device=regions.device)
    classes[:objects] = target.classes[chosen.matched] + 1
    deltas = torch.zeros_like(regions)
    deltas[:objects] = encode(target.boxes[chosen.matched], regions[:objects], NORMALISED)
    return Wanted(classes, deltas)


def choose(
    proposals: list[Tensor], targets: list[Target], count: int, object_share: float = 0.25, low: float = 0.0
) -> tuple[Tensor, Tensor, list[Wanted]]:
    """The regions of a batch to learn from; the ground truth is proposed as well.

    Args:
        proposals: of each picture float32 (R, 4); those without area are padding.
        targets: of each picture.
        count: regions a picture.
        object_share: objects among them, at most.
        low: see :func:`models.lineage.regions.match_regions`; where nothing is near an object, any background
            is as good.

    Returns:
        boxes float32 (K, 4), int64 (K,) the picture of each, and for each picture what they should be.
    """
    boxes, pictures, those = [], [], []
    for picture, (some, target) in enumerate(zip(proposals, targets, strict=True)):
        real = some[(some[:, 2:] > some[:, :2]).all(1)]
        regions = torch.cat([real, target.boxes])
        matches = match_regions(regions, target, low=low)
        if not (matches != -2).any():
            matches = match_regions(regions, target)
        chosen = sample(matches, count, object_share)
        boxes.append(regions[chosen.rows])
        pictures.append(torch.full_like(chosen.rows, picture))
        those.append(wanted(boxes[-1], chosen, target))
    return torch.cat(boxes), torch.cat(pictures), those


def head_losses(logits: Tensor, deltas: Tensor, those: list[Wanted]) -> dict[str, Tensor]:
    """Log loss of the class, smooth L1 of the true class' box; both by the number of regions.

    Args:
        logits: float (R, 1 + C), over all pictures of a batch.
        deltas: float (R, 1 + C, 4).
    """
    classes = torch.cat([one.classes for one in those])
    wanted_deltas = torch.cat([one.deltas for one in those])
    share = 1 / max(1, len(classes))
    objects = classes.nonzero()[:, 0]
    found = deltas.float()[objects, classes[objects]]
    box = functional.smooth_l1_loss(found, wanted_deltas[objects], reduction="sum")
    class_ = functional.cross_entropy(logits.float(), classes, reduction="sum")
    return {"class": class_ * share, "box": box * share}


def refined(
    logits: Tensor, deltas: Tensor, proposals: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """The candidates of a batch: every region as every class.

    Args:
        logits: float (B * R, 1 + C).
        deltas: float (B * R, 1 + C, 4).
        proposals: float32 (B, R, 4), xyxy; those without area are padding.

    Returns:
        boxes float32 (B, N, 4) in the picture, and scores float32 (B, N, C). Classes have boxes of their
        own, so that with several of them a row has a score for one class alone.
    """
    batch, regions, classes = *proposals.shape[:2], logits.shape[1] - 1
    scores = logits.float().softmax(1)[:, 1:].view(batch, regions, classes)
    ways = deltas.float()[:, 1:].view(batch, regions, classes, 4)
    boxes = clip(decode(ways, proposals[:, :, None], NORMALISED), height, width)
    real = ((boxes[..., 2:] - boxes[..., :2]) >= _MIN_SIDE).all(-1)  # of padding and outside, nothing is left
    return candidates(boxes, torch.where(real, scores, 0.0))


def candidates(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Regions that have a box of their own for each class, as detectors return their candidates.

    Args:
        boxes: float32 (B, R, C, 4).
        scores: float32 (B, R, C).

    Returns:
        boxes float32 (B, N, 4) and scores float32 (B, N, C): with one class all regions, with several the best
        pairs of a region and a class, each with a score for that class alone.
    """
    regions, classes = scores.shape[1:]
    if classes == 1:
        return boxes[:, :, 0], scores
    best, pairs = scores.flatten(1).topk(min(_CANDIDATES, regions * classes), 1)  # (B, N)
    boxes = boxes.flatten(1, 2).gather(1, pairs[:, :, None].expand(-1, -1, 4))
    own = torch.arange(classes, device=pairs.device) == (pairs % classes)[:, :, None]
    return boxes, torch.where(own, best[:, :, None], 0.0)
