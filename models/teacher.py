"""Learning from a stronger detector: in every cell, the student says what its teacher says of the same pixels.

A teacher needs no annotations, so pictures without any are of use, and what annotators left out is learned all the
same. Teacher and student look at the same augmented picture (Beyer et al., arXiv 2106.05237); soft scores carry more
than boxes that were decided upon (Hinton et al., arXiv 1503.02531).

Knows nothing of files or recipes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.detector import Detector
from models.target import Target, Taught


@dataclass(frozen=True, slots=True)
class Teacher:
    """A detector in evaluation mode that has a cell wherever the student has one, and sees its classes."""

    model: Detector
    columns: Tensor
    """int64 (C,): the teacher's index of each of the student's classes."""
    weight: float
    """Of what it teaches, beside what annotations do."""

    @classmethod
    def of(cls, model: Detector, student: Detector, weight: float, device: torch.device) -> Teacher:
        """``model`` as teacher of ``student``.

        Raises:
            ValueError: it lacks a class, or has other cells.
        """
        wanted, known = student.config.names, model.config.names
        lacking = [name for name in wanted if name not in known]
        if lacking:
            raise ValueError(f"does not know {', '.join(lacking)}, only {', '.join(known)}")
        height, width = student.config.input_height, student.config.input_width
        empty = torch.zeros(1, height, width, 3, dtype=torch.uint8)
        cells = [_cells(each, empty, device) for each in (model, student)]
        if cells[0] != cells[1]:
            raise ValueError(
                f"has {cells[0]} cells in {width}x{height} pixels, its student {cells[1]}; take another"
            )
        columns = torch.tensor([known.index(name) for name in wanted], device=device)
        return cls(model.requires_grad_(False).to(device).eval(), columns, weight)

    @torch.no_grad()
    def teach(self, images: Tensor, targets: Sequence[Target]) -> list[Target]:
        """The targets with what the teacher sees.

        Args:
            images: uint8 RGB (B, H, W, 3), on the teacher's device.
            targets: of the same B pictures.
        """
        boxes, scores = self.model.decode(self.model.normalise(images))
        scores = scores.float()[..., self.columns]
        return [
            replace(target, taught=Taught(its_boxes, its_scores))
            for target, its_boxes, its_scores in zip(targets, boxes.float(), scores, strict=True)
        ]


@torch.no_grad()
def _cells(model: Detector, images: Tensor, device: torch.device) -> int:
    was, model = model.training, model.to(device).eval()
    count = model.decode(model.normalise(images.to(device)))[0].shape[1]
    model.train(was)
    return count
