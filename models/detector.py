"""What training, validation, checkpoints and export ask of every architecture, and nothing more.

Whoever offers this can be trained, measured, exported and streamed. Knows nothing of any one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from models.coco import Example
from models.target import Target
from models.thresholds import NMS_THRESHOLD


class Config(Protocol):
    """All that is needed to build a network again: a frozen dataclass of plain values."""

    @property
    def names(self) -> tuple[str, ...]:
        """The C classes."""

    @property
    def input_height(self) -> int: ...

    @property
    def input_width(self) -> int: ...


class Detector(nn.Module):
    """One architecture: ``decode(normalise(images))`` gives boxes and scores before suppression.

    Attributes:
        family: its name in recipes, checkpoints and exported files.
        takes_proposals: whether it judges boxes that the host proposes instead of finding its own.
        nms_threshold: the IoU above which, of two boxes of one class, the better is meant to be kept alone.
        config: what it was built from.
    """

    family: ClassVar[str]
    takes_proposals: ClassVar[bool] = False
    nms_threshold: ClassVar[float] = NMS_THRESHOLD
    config: Config

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 RGB (B, H, W, 3) to float32 (B, 3, H, W) as the network expects it."""
        raise NotImplementedError

    def decode(self, images: Tensor, proposals: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Candidates of normalised images.

        Args:
            images: float32 (B, 3, H, W).
            proposals: float32 (B, R, 4), xyxy in input pixels, if it ``takes_proposals``; a row without
                area is padding, and scores 0.

        Returns:
            boxes float32 (B, N, 4), xyxy in input pixels, and scores float32 (B, N, C), 0 to 1. N is the
            same for every picture. Nothing is sorted, thresholded or suppressed between classes.
        """
        raise NotImplementedError

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """The named losses of B normalised images, float32 scalars whose sum is what training lowers.

        Called under autocast where training is mixed; what is not safe there must leave it.
        """
        raise NotImplementedError

    def start_from_imagenet(self) -> None:
        """Load the backbone's packaged ImageNet weights.

        Raises:
            DataError: the package is missing, or there is none for this backbone.
        """
        raise NotImplementedError

    def early(self, blocks: int) -> Iterable[nn.Module]:
        """The first ``blocks`` parts of the backbone, what a recipe may freeze; nothing for 0."""
        raise NotImplementedError


class Fit(Protocol):
    """How a detector learns that takes in all its examples at once, instead of lowering losses batch by batch."""

    def __call__(self, model: Any, examples: list[Example], seed: int, say: Callable[[str], None], /) -> None:
        """Learn everything from annotated pictures, on the device where the model is.

        Args:
            model: the detector.
            examples: the training pictures; their classes are the config's names.
            seed: of all that is random.
            say: told in a line what was done, a few times.

        Raises:
            DataError: a picture cannot be read, or there is too little to learn a class from.
        """
