"""How many objects proposals cover: what bounds every detector that judges them.

Recall by the number of proposals and by overlap, and average recall (Hosang, Benenson, Dollár and Schiele, "What
makes for effective detection proposals?", PAMI 2016, arXiv 1502.05082). An object is covered if one proposal
overlaps it enough; a proposal may cover several. Knows nothing of torch or how boxes were proposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

COUNTS = (10, 30, 100, 300, 1000, 3000)
IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(11))
"""0.5 to 1, at which recall is read off."""


@dataclass(frozen=True, slots=True)
class Recall:
    """Of one way of proposing."""

    best: dict[int, Doubles]
    """By the number of proposals a picture: for each object the IoU of the one nearest to it, (M,)."""

    @classmethod
    def of(cls, boxes: Sequence[Floats], proposals: Sequence[Floats], counts: Sequence[int]) -> Recall:
        """Of pictures' objects (M, 4) and their proposals (R, 4), best first.

        Raises:
            ValueError: there is no object in any picture.
        """
        overlaps = [overlap(*pair) for pair in zip(boxes, proposals, strict=True)]
        if not sum(map(len, overlaps)):
            raise ValueError("no picture has an object; there is nothing to recall")
        best = {
            count: np.concatenate([each[:, :count].max(1, initial=0.0) for each in overlaps])
            for count in counts
        }
        return cls(best)

    def at(self, count: int, iou: float) -> float:
        """The share of objects that a proposal overlaps by ``iou`` or more, 0 to 1."""
        return float((self.best[count] >= iou).mean())

    def average(self, count: int) -> float:
        """Average recall: twice the area below recall between IoU 0.5 and 1.

        That integral is the mean over objects of how far their best IoU is above 0.5.
        """
        return float(2 * np.maximum(self.best[count] - 0.5, 0).mean())


def overlap(boxes: Floats, others: Floats) -> Doubles:
    """Intersection over union (M, R) of xyxy boxes (M, 4) and (R, 4); 0 with one that has no area."""
    one, other = boxes[:, None].astype(np.float64), others[None].astype(np.float64)
    low, high = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    total = (one[..., 2:] - one[..., :2]).prod(-1) + (other[..., 2:] - other[..., :2]).prod(-1)
    return np.asarray(shared / np.maximum(total - shared, 1e-9), np.float64)
