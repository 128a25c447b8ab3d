"""The windows that a sliding classifier looks through, and which of them it learns from.

A window should hold one object, whole, and not much else. So an object's *ideal* window is the one of the
windows' shape around it in which it fills ``FILLED`` of the side it fills most, and a window is judged by its
IoU with that. Negatives are the windows that no ideal one comes near, some at random and some that the
classifier now takes for an object, picked anew in each step (OverFeat, arXiv 1312.6229, section 5).

Knows nothing of networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.boxes import area, paired_intersection, pairwise_iou
from models.lineage.regions import some_of
from models.target import IGNORED_SHARE, Target

FILLED = 0.8
POSITIVE_IOU = 0.5
NEGATIVE_IOU = 0.3

POSITIVES = 32
"""At most so many of a picture's windows are learned as objects."""

NEGATIVES_EACH = 3
FEWEST_NEGATIVES = 16
"""Three negatives for each positive (as SSD, arXiv 1512.02325, has it), and these where there is no object."""


def sliding_windows(
    rows: int, columns: int, step: float, window_height: float, window_width: float
) -> Tensor:
    """Windows (rows * columns, 4) xyxy whose corners are ``step`` pixels apart; row by row."""
    y, x = torch.meshgrid(torch.arange(rows) * step, torch.arange(columns) * step, indexing="ij")
    low = torch.stack([x, y], -1).reshape(-1, 2).float()
    return torch.cat([low, low + torch.tensor([window_width, window_height])], -1)


def ideal_windows(boxes: Tensor, aspect: float) -> Tensor:
    """The windows (M, 4) around boxes (M, 4) that hold them best; ``aspect`` is width to height."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    height = torch.maximum(sizes[:, 1], sizes[:, 0] / aspect) / FILLED
    half = torch.stack([height * aspect, height], -1) / 2
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return torch.cat([centres - half, centres + half], -1)


@dataclass(frozen=True, slots=True)
class Sampled:
    """Windows of one picture to learn from."""

    positives: Tensor
    """int64 (P,), indices of windows."""
    objects: Tensor
    """int64 (P,), which of the picture's objects is in each."""
    negatives: Tensor
    """int64 (Q,)."""


@torch.no_grad()
def sample(windows: Tensor, aspect: float, objectness: Tensor, target: Target) -> Sampled:
    """Choose the windows of one picture that a step learns from.

    An object that no window fits well is learned from the window that fits it best, if that fits at all.

    Args:
        windows: float32 (N, 4), all nearly of one shape, in input pixels.
        aspect: that shape, width to height.
        objectness: float32 (N,), how much the classifier takes each for an object now.
        target: the picture's ground truth.

    Returns:
        Some windows with an object, and three times as many without.
    """
    fit = windows.new_zeros(len(windows), 1)
    if len(target.boxes):
        fit = pairwise_iou(windows, ideal_windows(target.boxes, aspect))  # (N, M)
    best, objects = fit.max(1)
    positive = best >= POSITIVE_IOU
    if len(target.boxes):
        highest, rows = fit.max(0)
        reachable = (highest >= NEGATIVE_IOU).nonzero()[:, 0]
        positive[rows[reachable]] = True
        objects[rows[reachable]] = reachable
    negative = (best < NEGATIVE_IOU) & ~positive & ~_ignored(windows, target.ignored)
    positives = some_of(positive.nonzero()[:, 0], POSITIVES)
    wanted = max(FEWEST_NEGATIVES, NEGATIVES_EACH * len(positives))
    return Sampled(positives, objects[positives], _negatives(negative, objectness, wanted))


def _negatives(negative: Tensor, objectness: Tensor, wanted: int) -> Tensor:
    """Half of them the most offending, half of them at random from the rest."""
    among = negative.nonzero()[:, 0]
    offending = among[objectness[among].topk(min(len(among), wanted // 2)).indices]
    rest = negative.clone()
    rest[offending] = False
    return torch.cat([offending, some_of(rest.nonzero()[:, 0], wanted - len(offending))])


def _ignored(windows: Tensor, ignored: Tensor) -> Tensor:
    """bool (N,): whether most of a window lies in an ignored box, or most of such a box in the window."""
    shared = paired_intersection(windows[:, None], ignored[None])  # (N, K)
    smaller = torch.minimum(area(windows)[:, None], area(ignored))
    return (shared > IGNORED_SHARE * smaller).any(1)
