"""R-CNN (Girshick, Donahue, Darrell and Malik, CVPR 2014, arXiv 1311.2524): a network run on every proposal.

Each proposal is cut out of the picture with some context, warped to a square, and put through the whole
backbone. One linear SVM a class judges its features, one ridge regression a class betters its box, and
Platt's sigmoid makes probabilities of the SVMs' scores, which the paper leaves as they are. Nothing is
shared between proposals: that is what makes it as slow as it is.

Is fitted in stages, by :mod:`models.lineage.rcnn_fitting`. Knows nothing of where proposals come from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbones import build_backbone
from models.detector import Detector
from models.lineage.box_coding import clip, decode
from models.lineage.box_head import candidates
from models.lineage.roi import regions_of, roi_align, roi_pool

_AT_ONCE = 64
"""So many proposals of a picture go through the network together, or their features would fill the memory."""
_EXPORTED_PIXELS = 500 * 96 * 96
"""In an exported graph, which has the whole network once for each such part, crops of as many pixels go together."""


@dataclass(frozen=True, slots=True)
class RcnnConfig:
    """All that is needed to build the network again, and how it is fitted."""

    names: tuple[str, ...]
    input_height: int = 320
    input_width: int = 416
    proposals: str = "selective-search:300"
    """What it judges, see :class:`models.lineage.proposals.ProposalRule`."""
    backbone: str = "efficientnet_lite0"
    crop: int = 112
    """Side of a warped proposal; the paper's 227 is AlexNet's input."""
    context: int = 16
    """Of these, pixels on each side that show what is around the proposal (appendix A)."""
    steps: int = 200
    """Of fine-tuning, with 128 proposals each."""
    learning_rate: float = 0.001
    pictures: int = 200
    """At most so many training pictures are searched for hard negatives; their features are kept,"""
    regions: int = 600
    """of so many proposals each, the best first."""
    rounds: int = 2
    """Of mining."""
    cost: float = 0.001
    """Of an example that is on the wrong side by one, in the SVMs."""
    ridge: float = 1000.0
    """The regressions' lambda (appendix C)."""


class Rcnn(Detector):
    """The whole detector."""

    family = "rcnn"
    config: RcnnConfig
    takes_proposals = True
    nms_threshold = 0.3
    """The paper learned it for each class; its published code has this for all."""
    scale: Tensor
    filters: Tensor
    biases: Tensor
    curves: Tensor
    ways: Tensor
    offsets: Tensor

    def __init__(self, config: RcnnConfig) -> None:
        super().__init__()
        if not 2 * config.context < config.crop:
            raise ValueError(f"context is {config.context}, expected less than half of crop, {config.crop}")
        self.config = config
        self.backbone = build_backbone(config.backbone, frozen_norm=True)
        channels, classes = self.backbone.top_channels, len(config.names)
        self.register_buffer("scale", torch.tensor(1.0))  # brings features to a mean norm of 20
        self.register_buffer("filters", torch.zeros(classes, channels))
        self.register_buffer("biases", torch.zeros(classes))
        self.register_buffer("curves", torch.tensor([[1.0, 0.0]]).repeat(classes, 1))  # Platt's a and b
        self.register_buffer("ways", torch.zeros(classes, 4, channels))
        self.register_buffer("offsets", torch.zeros(classes, 4))

    def normalise(self, images: Tensor) -> Tensor:
        return self.backbone.normalise(images)

    def decode(self, images: Tensor, proposals: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Candidates: with one class each proposal as it became, with several the best pairs of both."""
        if proposals is None:
            raise ValueError("an R-CNN judges proposals, and was given none")
        features = self.features(images, proposals)
        boxes = clip(self.bettered(features, proposals), *images.shape[2:])
        return candidates(boxes, self.likely(features, proposals))

    def features(self, images: Tensor, boxes: Tensor) -> Tensor:
        """What the backbone makes of boxes (B, R, 4) in normalised images: float32 (B, R, channels)."""
        exported = max(1, _EXPORTED_PIXELS // self.config.crop**2)
        at_once = exported if torch.compiler.is_exporting() else _AT_ONCE
        described = [
            self.described(images, part).view(*part.shape[:2], -1) for part in torch.split(boxes, at_once, 1)
        ]
        return torch.cat(described, 1) * self.scale

    def likely(self, features: Tensor, boxes: Tensor) -> Tensor:
        """How likely boxes (B, R, 4) with these features are of each class: float32 (B, R, C)."""
        real = (boxes[..., 2:] > boxes[..., :2]).all(2, keepdim=True)
        likely = (self.margins(features) * self.curves[:, 0] + self.curves[:, 1]).sigmoid()
        return torch.where(real, likely, 0.0)

    def described(self, images: Tensor, boxes: Tensor) -> Tensor:
        """As :meth:`features`, not scaled, all at once and in one list (B * R, channels)."""
        flat, pictures = regions_of(boxes)
        maps = self.backbone.trunk(self.warped(images, flat, pictures))
        size, (height, width) = self.backbone.pool_size, maps.shape[2:]
        if (height, width) != (size, size):  # the last pooling, of the networks that have one
            whole = torch.tensor([0.0, 0.0, width - 1, height - 1], device=maps.device).expand(
                maps.shape[0], 4
            )
            maps = roi_pool(maps, whole, torch.arange(maps.shape[0], device=maps.device), size, 1.0)
        described: Tensor = self.backbone.top(maps).float()
        return described

    def warped(self, images: Tensor, boxes: Tensor, pictures: Tensor) -> Tensor:
        """Boxes (R, 4) with context as squares, whatever their shape: float32 (R, 3, crop, crop).

        Pixels are interpolated, not averaged; what lies beyond the picture is 0, the mean, as in the paper.
        """
        inner = self.config.crop - 2 * self.config.context
        margin = (boxes[:, 2:] - boxes[:, :2]) * (self.config.context / inner)
        around = torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], 1)
        squares = roi_align(images, around, pictures, self.config.crop, 1.0, samples=1)
        return squares.contiguous(memory_format=torch.channels_last)  # in which the CPU is twice as fast

    def margins(self, features: Tensor) -> Tensor:
        """The SVMs' scores (..., C) of features (..., channels)."""
        return functional.linear(features, self.filters, self.biases)

    def bettered(self, features: Tensor, boxes: Tensor) -> Tensor:
        """Boxes (..., 4) as the regressions of each class would have them: (..., C, 4)."""
        ways = functional.linear(features, self.ways.flatten(0, 1), self.offsets.flatten())
        return decode(ways.view(*boxes.shape[:-1], -1, 4), boxes[..., None, :])

    def start_from_imagenet(self) -> None:
        self.backbone.load_imagenet()

    def early(self, blocks: int) -> Iterable[nn.Module]:
        return self.backbone.early(blocks)
