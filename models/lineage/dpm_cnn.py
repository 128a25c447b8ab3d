"""A deformable part model as a convolutional network (Girshick, Iandola, Darrell and Malik, CVPR 2015).

What the part model computes at every place is written as layers: a convolution with the root and the
parts, distance transform pooling (each part may move a little, at a cost), an object geometry filter
(a sparse convolution that adds up the parts where they belong), and maxout over the components. It is
what is exported: the distance transform of the original has no operator, its pooling has.

Shapes: C classes of M components of P parts; G = C * M. Knows nothing of pyramids or training.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

NOWHERE = -1e9
"""The score of a place outside the map: parts stay inside."""


def pool_by_distance(responses: Tensor, costs: Tensor, reach: int) -> Tensor:
    """Distance transform pooling: the best response at most ``reach`` away, less what the way costs.

    As the cost is a sum over the axes, so is the pooling: along x, then along y.

    Args:
        responses: float32 (B, K, h, w) of K parts.
        costs: float32 (K, 4): of a displacement ``(dx, dy)``, the factors of ``dx, dy, dx^2, dy^2``.
        reach: in cells; the original's transform has no limit.

    Returns:
        float32 (B, K, h, w).
    """
    height, width = responses.shape[2:]
    linear_x, linear_y, square_x, square_y = costs[:, :, None, None].unbind(1)  # (K, 1, 1)
    wide = functional.pad(responses, (reach, reach, 0, 0), value=NOWHERE)
    moved_x = [
        wide[..., reach + dx : reach + dx + width] - (linear_x * dx + square_x * dx * dx)
        for dx in range(-reach, reach + 1)
    ]
    tall = functional.pad(_most(moved_x), (0, 0, reach, reach), value=NOWHERE)
    moved_y = [
        tall[:, :, reach + dy : reach + dy + height] - (linear_y * dy + square_y * dy * dy)
        for dy in range(-reach, reach + 1)
    ]
    return _most(moved_y)


def assemble(roots: Tensor, pooled: Tensor, geometry: Tensor, biases: Tensor) -> Tensor:
    """The score of every component: its root, and its parts where they belong.

    A root's windows are as near to each other as the parts' blocks are.

    Args:
        roots: float32 (B, G, h, w) responses.
        pooled: float32 (B, G * P, h + ah - 1, w + aw - 1).
        geometry: object geometry filters, float32 (G, P, ah, aw): 1 at each part's anchor, else 0.
        biases: float32 (G,).

    Returns:
        float32 (B, G, h, w).
    """
    groups = geometry.shape[0]
    return roots + functional.conv2d(pooled, geometry, biases, groups=groups)


def maxout(scores: Tensor, components: int) -> Tensor:
    """The best component of each class: float32 (B, G, h, w) to (B, C, h, w)."""
    return _most([scores[:, component::components] for component in range(components)])


def _most(maps: list[Tensor]) -> Tensor:
    most = maps[0]
    for each in maps[1:]:
        most = torch.maximum(most, each)
    return most
