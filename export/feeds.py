"""What a contract file is given: pictures placed on its input and, if it judges them, boxes proposed in these.

Knows nothing of onnxruntime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.artifact import ModelSpec
from export.reference import Floats, Pixels


@dataclass(frozen=True, slots=True)
class Feeds:
    """The inputs of N pictures."""

    images: Pixels  # (N, H, W, 3)
    proposals: Floats | None = None  # (N, P, 4)

    @classmethod
    def of(cls, pictures: Sequence[Pixels], spec: ModelSpec) -> Feeds:
        """Of pictures uint8 (height, width, 3) RGB of any shapes, by the letterbox of training."""
        letterboxes = [spec.place(picture.shape[1], picture.shape[0]) for picture in pictures]
        images = [box.apply(picture) for box, picture in zip(letterboxes, pictures, strict=True)]
        rule = spec.proposal_rule
        if rule is None:
            return cls(np.stack(images))
        proposals = [rule.inside(image, box) for image, box in zip(images, letterboxes, strict=True)]
        return cls(np.stack(images), np.stack(proposals))

    def part(self, first: int, count: int) -> dict[str, Pixels | Floats]:
        """By name, as a session takes them, of ``count`` pictures or of what there is left."""
        rows = slice(first, first + count)
        given: dict[str, Pixels | Floats] = {"images": self.images[rows]}
        return given if self.proposals is None else {**given, "proposals": self.proposals[rows]}
