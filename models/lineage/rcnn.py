"""R-CNN (Girshick, Donahue, Darrell and Malik, CVPR 2014, arXiv 1311.2524): a network run on every proposal.

Each proposal is cut out of the picture with some context, warped to a square, and put through the whole
backbone. One linear SVM a class judges its last features, one ridge regression a class betters its box from the
map before them, where it still shows what is where in the crop (the paper's fc7 and pool5), and Platt's sigmoid
makes probabilities of the SVMs' scores, which the paper leaves as they are. Nothing is shared between
proposals: that is what makes it as slow as it is.

Is fitted in stages, by :mod:`models.lineage.rcnn_fitting`. Knows nothing of where proposals come from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

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
_CELLS = 6
"""Of the map's cells so many are left along a side, as of AlexNet's, or little more: weights are needed for each."""
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
    regions: int = 2000
    """of so many proposals each, the best first."""
    rounds: int = 2
    """Of mining."""
    cost: float = 0.001
    """Of an example that is on the wrong side by one, in the SVMs (whose features have a norm of 20)."""
    ridge: float = 1000.0
    """The regressions' lambda (appendix C)."""


class Features(NamedTuple):
    """What the backbone makes of R crops."""

    top: Tensor
    """float32 (R, channels): what the SVMs judge."""
    map: Tensor
    """float32 (R, cells * trunk's channels): what boxes are bettered from, 7x7 cells at most."""


class Rcnn(Detector):
    """The whole detector."""

    family = "rcnn"
    config: RcnnConfig
    takes_proposals = True
    nms_threshold = 0.3
    """The paper learned it for each class; its published code has this for all."""
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
        self.merged = max(1, self.backbone.pool_size // _CELLS)
        cells = (self.backbone.pool_size // self.merged) ** 2
        classes = len(config.names)
        self.register_buffer("filters", torch.zeros(classes, self.backbone.top_channels))
        self.register_buffer("biases", torch.zeros(classes))
        self.register_buffer("curves", torch.tensor([[1.0, 0.0]]).repeat(classes, 1))  # Platt's a and b
        self.register_buffer("ways", torch.zeros(classes, 4, cells * self.backbone.trunk_channels))
        self.register_buffer("offsets", torch.zeros(classes, 4))

    def normalise(self, images: Tensor) -> Tensor:
        return self.backbone.normalise(images)

    def decode(self, images: Tensor, proposals: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Candidates: with one class each proposal as it became, with several the best pairs of both."""
        if proposals is None:
            raise ValueError("an R-CNN judges proposals, and was given none")
        boxes, likely = self.judged(images, proposals)
        return candidates(clip(boxes, *images.shape[2:]), likely)

    def judged(self, images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (B, R, 4) in normalised images as each class would have them, and how likely they are of it.

        Returns:
            float32 (B, R, C, 4) and (B, R, C).
        """
        exported = max(1, _EXPORTED_PIXELS // self.config.crop**2)
        at_once = exported if torch.compiler.is_exporting() else _AT_ONCE
        better, likely = [], []
        for part in torch.split(boxes, at_once, 1):
            top, map_ = (each.view(*part.shape[:2], -1) for each in self.features(images, part))
            better.append(self.bettered(map_, part))
            likely.append(self.likely(top, part))
        return torch.cat(better, 1), torch.cat(likely, 1)

    def likely(self, features: Tensor, boxes: Tensor) -> Tensor:
        """How likely boxes (B, R, 4) with these top features are of each class: float32 (B, R, C)."""
        real = (boxes[..., 2:] > boxes[..., :2]).all(2, keepdim=True)
        likely = (self.margins(features) * self.curves[:, 0] + self.curves[:, 1]).sigmoid()
        return torch.where(real, likely, 0.0)

    def features(self, images: Tensor, boxes: Tensor) -> Features:
        """What the backbone makes of boxes (B, R, 4) in normalised images, all at once and in one list."""
        flat, pictures = regions_of(boxes)
        maps = self.backbone.trunk(self.warped(images, flat, pictures))
        size, (height, width) = self.backbone.pool_size, maps.shape[2:]
        if (height, width) != (size, size):  # the last pooling, of the networks that have one
            whole = torch.tensor([0.0, 0.0, width - 1, height - 1], device=maps.device).expand(
                maps.shape[0], 4
            )
            maps = roi_pool(maps, whole, torch.arange(maps.shape[0], device=maps.device), size, 1.0)
        merged = functional.avg_pool2d(maps, self.merged) if self.merged > 1 else maps
        return Features(self.backbone.top(maps).float(), merged.flatten(1).float())

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
        """The SVMs' scores (..., C) of top features (..., channels)."""
        return functional.linear(features, self.filters, self.biases)

    def bettered(self, maps: Tensor, boxes: Tensor) -> Tensor:
        """Boxes (..., 4) with these maps as the regressions of each class would have them: (..., C, 4)."""
        ways = functional.linear(maps, self.ways.flatten(0, 1), self.offsets.flatten())
        return decode(ways.view(*boxes.shape[:-1], len(self.ways), 4), boxes[..., None, :])

    def start_from_imagenet(self) -> None:
        self.backbone.load_imagenet()

    def early(self, blocks: int) -> Iterable[nn.Module]:
        return self.backbone.early(blocks)
