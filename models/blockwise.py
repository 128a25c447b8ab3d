"""A detector taken as a chain of blocks, each of which can learn alone.

Behind a student's first blocks that know nothing yet, the later ones learn from noise. If every block is given what
its teacher's predecessor gives, each learns of the right thing from the start (blockwise distillation, Li et al., arXiv
1911.13053); put together, what they lack adds up, and the whole has to learn on. As they do not depend on each other,
each can have the pictures that suit it: the first blocks, which cost most, see enough in small ones, and the few cells
of the last ones cost little in large ones, where the first are not computed.

What is compared is what blocks give before their activation (Heo et al., arXiv 1904.01866): behind a SiLU most of a map
is near 0 and says little. With it blocks learned as much of a sixth of the pictures.

Knows nothing of losses, recipes or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from models.grid import STRIDES
from models.grid_detector import GridDetector

_LEAST_VARIANCE = 0.01
"""Of a map's mean one: channels that hardly change would otherwise count as much as those that say something."""


@dataclass(frozen=True, slots=True)
class Walk:
    """What each block of a detector gives, (B, ?, h, w) each."""

    backbone: list[Tensor]
    """Of the backbone's blocks; the last three are at strides 8, 16, 32."""
    maps: list[Tensor]
    """What is predicted from, at the same strides."""
    linear: list[Tensor]
    """All of these before their activation; none where they have none."""

    @property
    def channels(self) -> list[int]:
        """Of each block's output."""
        return [each.shape[1] for each in (*self.backbone, *self.maps)]

    @property
    def imitated(self) -> list[Tensor]:
        """What another architecture has as well: what is predicted from, and the backbone's last three."""
        return [*self.maps, *self.backbone[-len(STRIDES) :]]


def walk(model: GridDetector, images: Tensor, given: Walk | None = None, part: range | None = None) -> Walk:
    """What each block gives, of what the one before it gave.

    Args:
        model: the detector.
        images: normalised, float32 (B, 3, H, W).
        given: of another detector with the same channels: blocks are handed this instead.
        part: the only blocks to compute, what is behind the backbone being the last one; by default all. Where it
            does not begin with the first, what is ``given`` stands for those before it.
    """
    blocks = model.blocks()
    part = part or range(len(blocks) + 1)
    found: list[Tensor] = []
    linear: list[Tensor] = []
    with ExitStack() as hooks:
        for layer in model.ends():
            hook = layer.register_forward_hook(lambda _layer, _inputs, output: linear.append(output))
            hooks.callback(hook.remove)
        chain = given.backbone if given else found
        found += chain[: part.start]
        for block in blocks[part.start : part.stop]:
            found.append(block(chain[len(found) - 1] if found else images))
        maps = model.mixed(chain[-len(STRIDES) :]) if part.stop > len(blocks) else []
    return Walk(found, maps, linear)


def misfit(own: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """How far each map is from the one that is wanted, as a part of the variance of its channels; their sum.

    Args:
        own, wanted: (B, ?, h, w), pair by pair of one shape.
    """
    parts = []
    for map_, target in zip(own, wanted, strict=True):
        variance = target.float().var((0, 2, 3), keepdim=True)
        off = (map_.float() - target.float()).square()
        parts.append((off / (variance + _LEAST_VARIANCE * variance.mean())).mean())
    return torch.stack(parts).sum()
