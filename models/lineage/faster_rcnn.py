"""Faster R-CNN (Ren et al., arXiv 1506.01497): the network proposes its own regions.

One convolutional map serves both the region proposal network and Fast R-CNN's head, which puts the rest of
the backbone on each region. The four losses are lowered together, as the paper's "approximate joint
training": no gradient flows through the proposals' corners. Batch norm of the backbone keeps its ImageNet
statistics (arXiv 1512.03385, appendix A). Knows nothing of data, checkpoints or ONNX.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.backbones import build_backbone
from models.detector import Detector
from models.lineage.box_head import BoxPredictor, choose, head_losses, refined
from models.lineage.roi import regions_of, roi_align, roi_pool
from models.lineage.rpn import Proposed, Proposing, Rpn
from models.target import Target


@dataclass(frozen=True, slots=True)
class FasterRcnnConfig:
    """All that is needed to build the network again; but for the anchors' sizes the numbers are the paper's."""

    names: tuple[str, ...]
    input_height: int = 320
    input_width: int = 416
    backbone: str = "efficientnet_lite0"
    """One of :data:`models.backbones.BACKBONES`; resnet101 is that of arXiv 1512.03385."""
    pooling: Literal["align", "max"] = "align"
    """RoIAlign, or the RoI max pooling of the paper. That rounds boxes to whole cells: where one comes to lie halfway
    between two, onnxruntime's millionth of a pixel decides otherwise, and an export may miss its proof."""
    anchor_sizes: tuple[int, ...] = (48, 96, 192)
    """In input pixels. The paper's 128, 256 and 512 are for pictures whose shorter side is 600; where one fits nowhere
    into the input, it proposes but never learns."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Heights by widths."""
    rpn_width: int = 512
    proposals: int = 300
    """Regions looked at in a picture."""
    regions: int = 128
    """Regions learned from in a picture, a quarter of them objects at most."""
    training: Literal["joint", "alternating"] = "joint"
    """``alternating``: every other step lowers the losses of the proposal network alone, the steps between
    those of the head, as long as a step is one batch (no ``schedule.accumulate``). The paper instead alternates
    between four whole trainings, with stored proposals."""
    frozen_norm: bool = True
    """False: batch norm learns its statistics, as a backbone without ImageNet weights needs."""


class FasterRcnn(Detector):
    """The whole detector."""

    family = "faster-rcnn"
    config: FasterRcnnConfig
    steps: Tensor
    """int64 (): how often losses were asked for, which alternating goes by."""

    def __init__(self, config: FasterRcnnConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config.backbone, frozen_norm=config.frozen_norm)
        self.rpn = Rpn(self.backbone.trunk_channels, config.rpn_width, _plan(config, self.backbone.stride))
        self.predictor = BoxPredictor(self.backbone.top_channels, len(config.names))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def normalise(self, images: Tensor) -> Tensor:
        return self.backbone.normalise(images)

    def decode(self, images: Tensor, proposals: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Candidates, one a region and class (see :func:`models.lineage.box_head.refined`)."""
        features, proposed = self._shared(images)
        height, width = images.shape[2:]
        found, _ = self.rpn.proposals(proposed, height, width)  # (B, R, 4)
        logits, deltas = self._judge(features, *regions_of(found))
        return refined(logits, deltas, found, height, width)

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        features, proposed = self._shared(images)
        height, width = images.shape[2:]
        alternating, odd = self.config.training == "alternating", int(self.steps) % 2
        self.steps += 1
        losses: dict[str, Tensor] = {}
        with torch.autocast(images.device.type, enabled=False):
            if not (alternating and odd):
                losses |= self.rpn.losses(proposed, targets, height, width)
            found, _ = self.rpn.proposals(proposed, height, width)
            boxes, pictures, wanted = choose(list(found), targets, self.config.regions)
        if not alternating or odd:
            losses |= head_losses(*self._judge(features, boxes, pictures), wanted)
        return losses

    def _shared(self, images: Tensor) -> tuple[Tensor, Proposed]:
        """The map (B, trunk_channels, h, w) of normalised images, and what is said of its anchors."""
        features = self.backbone.trunk(images)
        return features, self.rpn([features], *images.shape[2:])

    def _judge(self, features: Tensor, boxes: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (R, 1 + C) and deltas (R, 1 + C, 4) of boxes (R, 4)."""
        size, scale = self.backbone.pool_size, 1 / self.backbone.stride
        with torch.autocast(features.device.type, enabled=False):
            pool = roi_pool if self.config.pooling == "max" else roi_align
            regions = pool(features.float(), boxes, pictures, size, scale)
        found: tuple[Tensor, Tensor] = self.predictor(self.backbone.top(regions))
        return found

    def start_from_imagenet(self) -> None:
        self.backbone.load_imagenet()

    def early(self, blocks: int) -> Iterable[nn.Module]:
        return self.backbone.early(blocks)


def _plan(config: FasterRcnnConfig, stride: int) -> Proposing:
    return Proposing(
        sizes=(config.anchor_sizes,),
        ratios=config.anchor_ratios,
        entering=6000,
        count=config.proposals,
        entering_training=12000,
        count_training=2000,
        strides=(stride,),
    )
