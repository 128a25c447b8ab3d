"""Which boxes learn what: matching to ground truth, and sampling so that background does not drown the rest.

The region proposal network matches anchors, Fast R-CNN's head matches regions; each in its own way, both
sample a fixed number a picture. Knows nothing of networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.boxes import pairwise_iou
from models.target import Target, in_ignored


@dataclass(frozen=True, slots=True)
class Sample:
    """What a picture's loss is made of: rows of its boxes, those of objects first."""

    objects: Tensor
    """int64 (P,): the rows of objects,"""
    matched: Tensor
    """int64 (P,): and the ground truth each is to find."""
    background: Tensor
    """int64 (N,): rows that are background."""

    @property
    def rows(self) -> Tensor:
        """int64 (P + N,)."""
        return torch.cat([self.objects, self.background])


def match_anchors(anchors: Tensor, target: Target, high: float = 0.7, low: float = 0.3) -> Tensor:
    """What each anchor is (arXiv 1506.01497, section 3.1.2).

    An anchor is an object where it overlaps one by ``high``, or where no anchor overlaps that object more;
    it is background where it overlaps none by ``low``.

    Args:
        anchors: float32 (N, 4).

    Returns:
        int64 (N,): the row of its ground truth, -1 for background, -2 for neither.
    """
    overlaps = pairwise_iou(anchors, target.boxes)  # (N, M)
    if 0 in overlaps.shape:
        background = torch.full((len(anchors),), -1, device=anchors.device)
        return torch.where(in_ignored(anchors, target.ignored), -2, background)
    best, row = overlaps.max(1)
    nearest = overlaps.max(0).values
    chosen = ((overlaps == nearest) & (nearest > 0)).any(1)
    is_background = (best < low) & ~in_ignored(anchors, target.ignored)
    matched = torch.where(is_background, -1, -2)
    return torch.where((best >= high) | chosen, row, matched)


def match_regions(boxes: Tensor, target: Target, high: float = 0.5, low: float = 0.0) -> Tensor:
    """What each region is (arXiv 1504.08083, section 2.3): an object from ``high`` on, below it background.

    Args:
        boxes: float32 (R, 4).
        low: less overlap than this is neither: Fast R-CNN's heuristic for hard examples (0.1 there).

    Returns:
        int64 (R,), as :func:`match_anchors`.
    """
    overlaps = pairwise_iou(boxes, target.boxes)
    if overlaps.shape[1] == 0:
        best, row = (
            boxes.new_zeros(len(boxes)),
            torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device),
        )
    else:
        best, row = overlaps.max(1)
    is_background = (best >= low) & ~in_ignored(boxes, target.ignored)
    return torch.where(best >= high, row, torch.where(is_background, -1, -2))


def sample(matches: Tensor, count: int, object_share: float) -> Sample:
    """A random ``count`` of boxes, objects up to their share, filled up with background.

    Args:
        matches: int64 (N,), as the functions above give them.
    """
    objects = some_of((matches >= 0).nonzero()[:, 0], int(count * object_share))
    background = some_of((matches == -1).nonzero()[:, 0], count - len(objects))
    return Sample(objects, matches[objects], background)


def some_of(rows: Tensor, most: int) -> Tensor:
    """At most so many of ``rows``, at random."""
    return rows[torch.randperm(len(rows), device=rows.device)[:most]]
