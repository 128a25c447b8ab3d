"""Learning from a stronger detector: in every cell, the student says what its teacher says of the same pixels.

A teacher needs no annotations, so pictures without any are of use, and what annotators left out is learned all the
same. Teacher and student look at the same augmented picture (Beyer et al., arXiv 2106.05237); soft scores carry more
than boxes that were decided upon (Hinton et al., arXiv 1503.02531). Scores say something where objects are, feature
maps everywhere: a student may imitate those too, what it predicts from (Cao et al., arXiv 2207.02039) and, as hints,
what its backbone gives (Romero et al., arXiv 1412.6550). One of its teacher's own channels can do so block by block,
see :mod:`models.blockwise`.

Knows nothing of files or recipes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.blockwise import Walk, walk
from models.grid import STRIDES
from models.grid_detector import GridDetector
from models.target import Target, Taught


class Imitation(nn.ModuleList):
    """How far a student's feature maps are from its teacher's, whatever the scale of each channel.

    A convolution of 1x1 a map, which learns along and is of no use afterwards, first brings the student's channels to
    the teacher's.

    Args:
        channels, wanted: of student and teacher, map by map.
        weights: of the maps.
    """

    def __init__(self, channels: Sequence[int], wanted: Sequence[int], weights: Sequence[float]) -> None:
        super().__init__(nn.Conv2d(*pair, 1, bias=False) for pair in zip(channels, wanted, strict=True))
        self.weights = tuple(weights)

    def forward(self, maps: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        """1 less the correlation of each channel with the teacher's, averaged over each map; their weighted sum.

        Args:
            maps, wanted: of student and teacher, (B, ?, h, w); further ones have no weight.
        """
        losses = [
            weight * functional.mse_loss(_standard(layer(own)), _standard(other)) / 2
            for layer, weight, own, other in zip(self, self.weights, maps, wanted, strict=False)
        ]
        return torch.stack(losses).sum()


def _standard(maps: Tensor) -> Tensor:
    """Each channel with mean 0 and deviation 1 over the batch."""
    return functional.batch_norm(maps.float(), None, None, training=True)


@dataclass(frozen=True, slots=True)
class Teacher:
    """A detector in evaluation mode that has a cell wherever the student has one, and sees its classes."""

    model: GridDetector
    columns: Tensor
    """int64 (C,): the teacher's index of each of the student's classes."""
    weight: float
    """Of what it teaches, beside what annotations do."""
    imitation: Imitation | None = None

    @classmethod
    def of(
        cls,
        model: GridDetector,
        student: GridDetector,
        weight: float,
        imitation: float,
        hints: float,
        device: torch.device,
        blockwise: bool = False,
    ) -> Teacher:
        """``model`` as teacher of ``student``.

        Args:
            weight: of what it says, beside what annotations do.
            imitation: weight of the maps that it predicts from; 0 leaves them alone.
            hints: weight of its backbone's maps.
            blockwise: blocks are to learn alone, so they need its channels.

        Raises:
            ValueError: it lacks a class, or has other cells or channels.
        """
        wanted, known = student.config.names, model.config.names
        lacking = [name for name in wanted if name not in known]
        if lacking:
            raise ValueError(f"does not know {', '.join(lacking)}, only {', '.join(known)}")
        height, width = student.config.input_height, student.config.input_width
        walks = [
            _walk(each, torch.zeros(1, height, width, 3, dtype=torch.uint8), device)
            for each in (student, model)
        ]
        cells = [sum(each[0, 0].numel() for each in one.maps) for one in walks]
        if cells[0] != cells[1]:
            raise ValueError(
                f"has {cells[1]} cells in {width}x{height} pixels, its student {cells[0]}; take another"
            )
        columns = torch.tensor([known.index(name) for name in wanted], device=device)
        chains = [one.channels for one in walks]
        if blockwise and chains[0] != chains[1]:
            raise ValueError(
                f"gives {chains[1]} channels block by block, its student {chains[0]}: leave distillation.blocks out"
            )
        channels = [[each.shape[1] for each in one.imitated] for one in walks]
        parts = (imitation, hints) if hints else (imitation,)
        weights = [part / len(STRIDES) for part in parts for _ in STRIDES]
        own, others = (each[: len(weights)] for each in channels)
        imitates = Imitation(own, others, weights).to(device) if any(weights) else None
        return cls(model.requires_grad_(False).to(device).eval(), columns, weight, imitates)

    @torch.no_grad()
    def teach(
        self, images: Tensor, targets: Sequence[Target], part: range | None = None
    ) -> tuple[list[Target], Walk]:
        """The targets with what the teacher sees, and what its blocks give.

        Args:
            images: uint8 RGB (B, H, W, 3), on the teacher's device.
            targets: of the same B pictures.
            part: the student's blocks that are to learn alone; what is behind them is not computed.
        """
        normal = self.model.normalise(images).contiguous(memory_format=torch.channels_last)
        its = walk(self.model, normal, part=range(part.stop) if part else None)
        if not its.maps:
            return list(targets), its
        boxes, scores = self.model.decode_of(its.maps, normal)
        scores = scores[..., self.columns]
        taught = [
            replace(target, taught=Taught(its_boxes, its_scores))
            for target, its_boxes, its_scores in zip(targets, boxes, scores, strict=True)
        ]
        return taught, its


@torch.no_grad()
def _walk(model: GridDetector, images: Tensor, device: torch.device) -> Walk:
    was, model = model.training, model.to(device).eval()
    found = walk(model, model.normalise(images.to(device)))
    model.train(was)
    return found
