"""Boxes for the models that judge what the host proposes: found in the pictures as the model is to see them.

On one CPU core Selective Search takes about a second for a picture of 416x320: such a detector shows how it was
before networks proposed boxes themselves, it is not for live cameras. Knows nothing of sessions or frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from export.artifact import Letterbox, ModelSpec


class Proposing:
    """Proposes to one model; keeps nothing, so threads may share it."""

    def __init__(self, spec: ModelSpec) -> None:
        self._rule = spec.proposal_rule

    def inside(
        self, images: npt.NDArray[np.uint8], letterboxes: Sequence[Letterbox]
    ) -> npt.NDArray[np.float32] | None:
        """Boxes float32 (B, P, 4), in input pixels, in a batch (B, H, W, 3); None for a model that takes none."""
        if self._rule is None:
            return None
        pairs = zip(images, letterboxes, strict=True)
        return np.stack([self._rule.inside(image, letterbox) for image, letterbox in pairs])
