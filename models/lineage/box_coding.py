"""A box as what a regressor predicts of it, relative to a box that is already there.

(tx, ty, tw, th) of R-CNN (arXiv 1311.2524, appendix C): the way between the centres in the reference's
width and height, and the logarithms of how much wider and higher the box is. Fast R-CNN (arXiv 1504.08083)
normalises them to unit variance, which its successors do by constant weights. A box's width is x2 - x1,
without the extra pixel that the papers' code counts. Knows nothing of anchors, proposals or losses.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Weights = tuple[float, float, float, float]

PLAIN: Weights = (1.0, 1.0, 1.0, 1.0)
"""Of the region proposal network (arXiv 1506.01497)."""

NORMALISED: Weights = (10.0, 10.0, 5.0, 5.0)
"""Of what refines proposals: targets there have standard deviations of about 0.1 and 0.2."""

MAX_LOG_GROWTH = math.log(1000 / 16)
"""No side grows more than this; before training, exponentials would run over."""


def encode(boxes: Tensor, references: Tensor, weights: Weights = PLAIN) -> Tensor:
    """Deltas (..., 4) that lead from ``references`` (..., 4) to ``boxes`` (..., 4), both xyxy with an area."""
    sizes, centres = _sizes_and_centres(boxes)
    reference_sizes, reference_centres = _sizes_and_centres(references)
    ways = (centres - reference_centres) / reference_sizes
    return torch.cat([ways, (sizes / reference_sizes).log()], -1) * boxes.new_tensor(weights)


def decode(deltas: Tensor, references: Tensor, weights: Weights = PLAIN) -> Tensor:
    """Boxes (..., 4), xyxy, to which ``deltas`` (..., 4) lead from ``references`` (..., 4)."""
    deltas = deltas / torch.tensor(weights, device=deltas.device)
    reference_sizes, reference_centres = _sizes_and_centres(references)
    centres = deltas[..., :2] * reference_sizes + reference_centres
    sizes = deltas[..., 2:].clamp(max=MAX_LOG_GROWTH).exp() * reference_sizes
    return torch.cat([centres - sizes / 2, centres + sizes / 2], -1)


def clip(boxes: Tensor, height: int, width: int) -> Tensor:
    """What of boxes (..., 4), xyxy, lies in a picture of this size."""
    left, top, right, bottom = boxes.unbind(-1)
    across, down = (0, width), (0, height)
    return torch.stack([left.clamp(*across), top.clamp(*down), right.clamp(*across), bottom.clamp(*down)], -1)


def _sizes_and_centres(boxes: Tensor) -> tuple[Tensor, Tensor]:
    sizes = boxes[..., 2:] - boxes[..., :2]
    return sizes, boxes[..., :2] + sizes / 2
