"""Localization as regression: a network that says what is in a picture also says where, as four numbers.

The lecture's simplest detector: on a classifier's trunk, a second head regresses a box with an L2 loss beside
the classifier's cross entropy (Sermanet et al. 2014, arXiv 1312.6229; Simonyan & Zisserman 2014, arXiv
1409.1556, section A). It finds exactly K objects because it has exactly K outputs.

Two choices are the configuration's:

* where the box head stands: on the last convolution's map with fully connected layers of its own ("conv", as
  OverFeat and VGG) or as one linear layer after the classifier's ("fc", as DeepPose and R-CNN);
* one box for all classes, or one a class (C x 4), of which only the right class's is trained.

Each of the K outputs has its own box and its own class, one of which is "nothing here". Which output answers
for which object is decided by Hungarian matching, anew in every picture: the assignment under which the loss
is least (MultiBox, Erhan et al. 2014, arXiv 1312.2249). Ordering objects from left to right would need no
matching, but one object that was not annotated, or that leaves the picture, would shift the meaning of every
output to its right. The outputs start in that order, though, so that they begin with a part of the picture each.

Knows nothing of data, checkpoints or ONNX.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional

from models.backbones import build_backbone
from models.backbones.backbone import Backbone
from models.detector import Detector
from models.lineage.dense import fully_connected
from models.lineage.map_shape import map_shape
from models.target import Target, in_ignored

BOX_WEIGHT = 50.0
"""Squared errors of coordinates in 0 to 1 are small: a tenth of the picture on each makes 0.02."""


@dataclass(frozen=True, slots=True)
class LocalizationConfig:
    """All that is needed to build the network again."""

    names: tuple[str, ...]
    input_height: int = 320
    input_width: int = 416
    backbone: str = "efficientnet_lite0"
    head: str = "conv"
    """Where the box head stands: ``conv`` or ``fc``."""
    class_specific: bool = False
    """Whether each class has a box of its own."""
    boxes: int = 6
    """K: exactly so many objects are localised."""
    hidden: int = 512
    """Width of the fully connected layers; the paper's are 4096."""
    frozen_norm: bool = True
    """False: batch norm learns its statistics, as a backbone without ImageNet weights needs."""


@dataclass(frozen=True, slots=True)
class Matching:
    """The outputs of one picture that answer for an object, and for which."""

    outputs: Tensor
    """int64 (M,)."""
    targets: Tensor
    """int64 (M,)."""


def match(cost: Tensor) -> Matching:
    """The one-to-one assignment of K outputs to objects whose summed cost (K, objects) is least."""
    outputs, targets = linear_sum_assignment(cost.detach().cpu().double().numpy())
    return Matching(torch.from_numpy(outputs).to(cost.device), torch.from_numpy(targets).to(cost.device))


def squared_errors(corners: Tensor, wanted: Tensor) -> Tensor:
    """The L2 loss (...) of normalised corners (..., 4): half the sum of the squares."""
    return (corners - wanted).square().sum(-1) / 2


class Localization(Detector):
    """The whole detector."""

    family = "localization"
    config: LocalizationConfig

    def __init__(self, config: LocalizationConfig) -> None:
        super().__init__()
        if config.head not in ("conv", "fc"):
            raise ValueError(f"head is {config.head!r}, expected 'conv' or 'fc'")
        self.config = config
        self.backbone: Backbone = build_backbone(config.backbone, frozen_norm=config.frozen_norm)
        classes, hidden = len(config.names), config.hidden
        self._choices = classes if config.class_specific else 1
        channels, rows, columns = map_shape(self.backbone, config.input_height, config.input_width)
        inputs = channels * (rows // 2) * (columns // 2)
        self.shared = fully_connected(inputs, (hidden,), hidden)  # the classifier's fc6 and fc7
        self.classifier = nn.Sequential(
            nn.ReLU(), nn.Dropout(), nn.Linear(hidden, config.boxes * (classes + 1))
        )
        outputs = config.boxes * self._choices * 4
        self.box_head = (
            fully_connected(inputs, (hidden,), outputs, dropout=0.0)
            if config.head == "conv"
            else nn.Sequential(nn.ReLU(), nn.Linear(hidden, outputs))
        )
        self._spread_boxes()

    def _pooled(self, images: Tensor) -> Tensor:
        """The last convolution's map after its pooling, (B, C, h, w) at stride 32."""
        return functional.max_pool2d(self.backbone.trunk(images), 2)

    @torch.no_grad()
    def _spread_boxes(self) -> None:
        """Let the K boxes start side by side, from left to right, in the middle half of the height."""
        last = self.box_head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=0.001)
        count = self.config.boxes
        left = torch.arange(count) / count
        start = torch.stack(
            [left, torch.full((count,), 0.25), left + 1 / count, torch.full((count,), 0.75)], -1
        )
        last.bias.copy_(start[:, None].expand(-1, self._choices, -1).flatten())

    def normalise(self, images: Tensor) -> Tensor:
        return self.backbone.normalise(images)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Raw predictions of normalised images (B, 3, H, W).

        Returns:
            logits (B, K, C + 1), the last of which is "nothing here", and corners (B, K, 1 or C, 4): x1, y1,
            x2, y2 as parts of the picture's width and height.
        """
        maps = self._pooled(images)
        features = self.shared(maps)
        logits = self.classifier(features).unflatten(1, (self.config.boxes, -1))
        corners = self.box_head(maps if self.config.head == "conv" else features)
        return logits, corners.unflatten(1, (self.config.boxes, self._choices, 4))

    def decode(self, images: Tensor, proposals: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """K boxes, or K x C where each class has its own, which then scores under no other class."""
        logits, corners = self(images)
        scores = logits.float().softmax(-1)[..., :-1]  # (B, K, C)
        if self.config.class_specific:
            scores = scores.unsqueeze(-1) * torch.eye(scores.shape[-1], device=scores.device)
            scores = scores.flatten(1, 2)  # (B, K * C, C)
        return self._to_pixels(corners.float()).flatten(1, 2), scores

    def _to_pixels(self, corners: Tensor) -> Tensor:
        """Corners (..., 4) as parts of the picture to xyxy in input pixels, inside the picture."""
        low = torch.minimum(corners[..., :2], corners[..., 2:])
        high = torch.maximum(corners[..., :2], corners[..., 2:])
        return torch.cat([low, high], -1).clamp(0, 1) * self._size(corners)

    def _size(self, like: Tensor) -> Tensor:
        width, height = self.config.input_width, self.config.input_height
        return like.new_tensor([width, height, width, height])

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Cross entropy of all outputs but those on ignored areas, and L2 of those that have an object, both by the
        number of objects, as in MultiBox: what an output is matched by is what it then learns from."""
        logits, corners = self(images)
        with torch.autocast(images.device.type, enabled=False):
            parts = [
                self._picture(*picture)
                for picture in zip(logits.float(), corners.float(), targets, strict=True)
            ]
        class_sum, box_sum, matched = (sum(part) for part in zip(*parts, strict=True))
        return {"class": class_sum / max(1, matched), "box": BOX_WEIGHT * box_sum / max(1, matched)}

    def _picture(self, logits: Tensor, corners: Tensor, target: Target) -> tuple[Tensor, Tensor, int]:
        """Summed losses of one picture, class and box, and how many outputs answer for an object.

        Args:
            logits: (K, C + 1).
            corners: (K, 1 or C, 4).
            target: its ground truth.
        """
        wanted = target.boxes / self._size(corners)
        of_class = target.classes if self.config.class_specific else torch.zeros_like(target.classes)
        errors = squared_errors(corners[:, of_class], wanted)  # (K, M)
        log_scores = logits.log_softmax(-1)
        nothing = logits.shape[-1] - 1
        # What the loss gains where an output answers for an object instead of for nothing.
        matching = match(BOX_WEIGHT * errors + log_scores[:, nothing:] - log_scores[:, target.classes])
        labels = torch.full((len(logits),), nothing, device=logits.device)
        labels[matching.outputs] = target.classes[matching.targets]
        counted = (labels != nothing) | ~in_ignored(self._to_pixels(corners.mean(1)), target.ignored)
        class_loss = functional.cross_entropy(logits[counted], labels[counted], reduction="sum")
        box_loss = errors[matching.outputs, matching.targets].sum()
        return class_loss, box_loss, len(matching.outputs)

    def start_from_imagenet(self) -> None:
        self.backbone.load_imagenet()

    def early(self, blocks: int) -> Iterable[nn.Module]:
        return self.backbone.early(blocks)
