"""Fast R-CNN (Girshick, ICCV 2015, arXiv 1504.08083): one convolutional map, on which all proposals are judged.

The trunk of a backbone runs once over the picture. Each proposal is pooled to a small map, the backbone's
top makes features of it, and two linear layers side by side give its class and, for each class, a better
box; all of it is trained at once. Batch normalisation keeps its ImageNet statistics, because a few pictures
make poor ones (He et al., arXiv 1512.03385, appendix A).

Knows nothing of where proposals come from, files or ONNX.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from models.backbones import build_backbone
from models.detector import Detector
from models.lineage.box_head import BoxPredictor, choose, head_losses, refined
from models.lineage.roi import regions_of, roi_align, roi_pool
from models.lineage.truncation import truncate, truncated_shape
from models.target import Target

_AT_ONCE = 1024
"""So many regions go through the backbone's top together, or their features would fill the memory."""


@dataclass(frozen=True, slots=True)
class FastRcnnConfig:
    """All that is needed to build the network again."""

    names: tuple[str, ...]
    input_height: int = 320
    input_width: int = 416
    proposals: str = "selective-search:1000"
    """What it judges, see :class:`models.lineage.proposals.ProposalRule`."""
    backbone: str = "efficientnet_lite0"
    pooling: str = "max"
    """``max`` as in the paper, or ``align`` (arXiv 1703.06870)."""
    rois: int = 64
    """Regions sampled of each picture in training; the paper's batches are two pictures."""
    background_iou: float = 0.1
    """Less overlap with every object is not sampled: what is near objects is hard, and teaches most."""
    ranks: tuple[int, ...] = ()
    """Of the backbone's fully connected layers, once :meth:`FastRcnn.truncated` has cut them down."""


class FastRcnn(Detector):
    """The whole detector."""

    family = "fast-rcnn"
    config: FastRcnnConfig
    takes_proposals = True
    nms_threshold = 0.3
    """Of the published code; the paper says only that it is R-CNN's."""

    def __init__(self, config: FastRcnnConfig) -> None:
        super().__init__()
        if config.pooling not in ("max", "align"):
            raise ValueError(f"pooling is {config.pooling!r}, expected max or align")
        self.config = config
        self.backbone = build_backbone(config.backbone, frozen_norm=True)
        if config.ranks:
            for (name, layer), rank in zip(self._dense(), config.ranks, strict=True):
                self.backbone.set_submodule(name, truncated_shape(layer, rank))
        self.predictor = BoxPredictor(self.backbone.top_channels, len(config.names))

    def normalise(self, images: Tensor) -> Tensor:
        return self.backbone.normalise(images)

    def decode(self, images: Tensor, proposals: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Candidates: with one class each proposal as it became, with several the best pairs of both."""
        if proposals is None:
            raise ValueError("a Fast R-CNN judges proposals, and was given none")
        logits, deltas = self._judge(self.backbone.trunk(images), *regions_of(proposals))
        if self.config.pooling == "max":
            proposals = without_doubles(proposals, self.backbone.stride)
        return refined(logits, deltas, proposals, images.shape[2], images.shape[3])

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Log loss of the classes, smooth L1 of the boxes, over sampled regions, the objects' own among them."""
        config = self.config
        proposals = [target.proposals for target in targets]
        boxes, pictures, those = choose(proposals, targets, config.rois, low=config.background_iou)
        logits, deltas = self._judge(self.backbone.trunk(images), boxes, pictures)
        with torch.autocast(images.device.type, enabled=False):
            return head_losses(logits, deltas, those)

    def _judge(self, features: Tensor, boxes: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """The trunk's map to class logits (R, 1 + C) and deltas (R, 1 + C, 4) of boxes (R, 4)."""
        pool = roi_pool if self.config.pooling == "max" else roi_align
        size = self.backbone.pool_size
        pooled = pool(features, boxes, pictures, size, 1 / self.backbone.stride)  # (R, channels, size, size)
        if torch.compiler.is_exporting() or self.training:
            top = self.backbone.top(pooled)
        else:
            top = torch.cat([self.backbone.top(part) for part in torch.split(pooled, _AT_ONCE)])
        logits, deltas = self.predictor(top)
        return logits, deltas

    def truncated(self, ranks: tuple[int, ...]) -> FastRcnn:
        """The same detector with cheaper fully connected layers, by truncated SVD (section 3.1).

        Args:
            ranks: for each fully connected layer of the backbone's top how many singular values are kept;
                the paper takes 1024 and 256 of VGG-16's fc6 and fc7.

        Raises:
            ValueError: there are not as many such layers.
        """
        layers = self._dense()
        if not layers or len(ranks) != len(layers):
            raise ValueError(
                f"{self.config.backbone} has {len(layers)} fully connected layers, not {len(ranks)}"
            )
        smaller = FastRcnn(replace(self.config, ranks=ranks))
        weights = self.state_dict()
        for (name, layer), rank in zip(layers, ranks, strict=True):
            for key in layer.state_dict():
                del weights[f"backbone.{name}.{key}"]
            for key, value in truncate(layer, rank).state_dict().items():
                weights[f"backbone.{name}.{key}"] = value
        smaller.load_state_dict(weights, strict=True)
        return smaller.train(self.training)

    def _dense(self) -> list[tuple[str, nn.Linear]]:
        """The fully connected layers of the backbone's top, by name."""
        return [(name, each) for name, each in self.backbone.named_modules() if isinstance(each, nn.Linear)]

    def start_from_imagenet(self) -> None:
        self.backbone.load_imagenet()

    def early(self, blocks: int) -> Iterable[nn.Module]:
        return self.backbone.early(blocks)


def without_doubles(proposals: Tensor, stride: int) -> Tensor:
    """Proposals (B, R, 4), of which those become padding that pool the same cells as one before them.

    Their scores are equal, and which of them suppression would keep would be left to rounding errors.
    """
    cells = (proposals / stride + 0.5).floor()  # as pooling rounds what is not negative
    same = (cells[:, :, None] == cells[:, None]).all(3)  # (B, R, R)
    earlier = torch.ones(same.shape[1:], dtype=torch.bool, device=same.device).tril(-1)
    return torch.where((same & earlier).any(2, keepdim=True), 0.0, proposals)
