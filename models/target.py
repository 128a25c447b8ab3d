"""The ground truth of one picture, as a loss sees it. Knows nothing of files or models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.boxes import covered

IGNORED_SHARE = 0.5
"""A box of which more lies in an ignored one is not learned as background."""


@dataclass(frozen=True, slots=True)
class Taught:
    """What a stronger detector sees in each of N cells."""

    boxes: Tensor
    """float32 (N, 4), xyxy in input pixels."""
    scores: Tensor
    """float32 (N, C), 0 to 1."""


@dataclass(frozen=True, slots=True)
class Target:
    """Boxes are xyxy in input pixels."""

    boxes: Tensor
    """float32 (M, 4)."""
    classes: Tensor
    """int64 (M,)."""
    ignored: Tensor
    """float32 (K, 4): crowds and cut-off objects; what lies there is neither right nor wrong."""
    partial: Tensor
    """float32 (P, 4): areas where objects without a box may be."""
    proposals: Tensor
    """float32 (R, 4), best first; none where the detector finds its own."""
    taught: Taught | None = field(default=None, kw_only=True)


def moved(targets: Sequence[Target], device: torch.device) -> list[Target]:
    """The targets on ``device``, without what they were taught, in one transfer of each part."""
    parts = []
    for name in ("boxes", "classes", "ignored", "partial", "proposals"):
        each = [getattr(target, name) for target in targets]
        parts.append(torch.split(torch.cat(each).to(device), [len(one) for one in each]))
    return [Target(*one) for one in zip(*parts, strict=True)]


def in_ignored(boxes: Tensor, ignored: Tensor) -> Tensor:
    """bool (N,): whether most of a box (N, 4) lies in one of the ignored (K, 4)."""
    return (covered(boxes, ignored) > IGNORED_SHARE).any(1)
