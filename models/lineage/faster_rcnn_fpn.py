"""Faster R-CNN on a feature pyramid (Lin et al., arXiv 1612.03144), as torchvision trained and published it.

Every level proposes objects of its own size; regions are looked at on the level that fits them, by two
fully connected layers. Tensors have torchvision's names, so that its checkpoints load as they are. Learns as
the paper has it; torchvision's own training lets the head's smooth L1 loss turn linear at a ninth, not at 1.
Knows nothing of data or ONNX.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from models.backbones.resnet import ResNet
from models.coco_names import COCO_CATEGORIES
from models.detector import Detector
from models.errors import DataError
from models.lineage.box_head import BoxPredictor, choose, head_losses, refined
from models.lineage.fpn import WIDTH, PyramidBackbone, pyramid_roi_align
from models.lineage.roi import regions_of
from models.lineage.rpn import Proposing, Rpn
from models.target import Target

_POOL_SIZE = 7
_DEPTHS = {"resnet18": 18, "resnet34": 34, "resnet50": 50, "resnet101": 101}
_OLD_NAME = re.compile(r"((?:inner|layer)_blocks\.\d+)\.(weight|bias)$")
_OLD_RPN_NAME = re.compile(r"(rpn\.head\.conv)\.(weight|bias)$")
PUBLISHED_EPSILON = 0.0
"""Of batch norm in torchvision's published detectors."""


@dataclass(frozen=True, slots=True)
class FasterRcnnFpnConfig:
    """All that is needed to build the network again; the numbers are torchvision's."""

    names: tuple[str, ...]
    input_height: int = 320
    input_width: int = 416
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    """In input pixels, one a level."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Heights by widths."""
    proposals: int = 1000
    """Regions looked at in a picture."""
    regions: int = 512
    """Regions learned from in a picture, a quarter of them objects at most."""
    head_width: int = 1024
    norm_epsilon: float = 1e-5
    """Of the frozen batch norm."""


class TwoLayers(nn.Module):
    """The head's trunk: two fully connected layers."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.fc6 = nn.Linear(inputs, width)
        self.fc7 = nn.Linear(width, width)

    def forward(self, regions: Tensor) -> Tensor:
        """(R, C, size, size) to (R, width)."""
        x = self.fc6(regions.flatten(1)).relu()
        out: Tensor = self.fc7(x).relu()
        return out


class FasterRcnnFpn(Detector):
    """The whole detector."""

    family = "faster-rcnn-fpn"
    config: FasterRcnnFpnConfig

    def __init__(self, config: FasterRcnnFpnConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = PyramidBackbone(_DEPTHS[config.backbone], config.norm_epsilon)
        self.rpn = Rpn(WIDTH, WIDTH, _plan(config))
        self.roi_heads = nn.ModuleDict(
            {
                "box_head": TwoLayers(WIDTH * _POOL_SIZE**2, config.head_width),
                "box_predictor": BoxPredictor(config.head_width, len(config.names)),
            }
        )

    def normalise(self, images: Tensor) -> Tensor:
        return self.backbone.body.normalise(images)

    def decode(self, images: Tensor, proposals: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Candidates, one a region and class (see :func:`models.lineage.box_head.refined`)."""
        height, width = images.shape[2:]
        maps = self.backbone(images)
        found, _ = self.rpn.proposals(self.rpn(maps, height, width), height, width)  # (B, R, 4)
        logits, deltas = self._judge(maps, *regions_of(found))
        return refined(logits, deltas, found, height, width)

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        height, width = images.shape[2:]
        maps = self.backbone(images)
        proposed = self.rpn(maps, height, width)
        with torch.autocast(images.device.type, enabled=False):
            losses = self.rpn.losses(proposed, targets, height, width)
            found, _ = self.rpn.proposals(proposed, height, width)
            boxes, pictures, wanted = choose(list(found), targets, self.config.regions)
        return losses | head_losses(*self._judge(maps, boxes, pictures), wanted)

    def _judge(self, maps: list[Tensor], boxes: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (R, 1 + C) and deltas (R, 1 + C, 4) of boxes (R, 4)."""
        with torch.autocast(boxes.device.type, enabled=False):
            regions = pyramid_roi_align(maps[:4], boxes, pictures, _POOL_SIZE)
        features = self.roi_heads["box_head"](regions)
        found: tuple[Tensor, Tensor] = self.roi_heads["box_predictor"](features)
        return found

    def start_from_imagenet(self) -> None:
        published = ResNet(_DEPTHS[self.config.backbone])
        published.drop_head()
        published.load_imagenet()
        self.backbone.body.load_state_dict(_without_counters(published.state_dict()), strict=True)

    def early(self, blocks: int) -> Iterable[nn.Module]:
        return self.backbone.body.early(blocks)

    def load_torchvision(self, path: Path) -> None:
        """Load a checkpoint of torchvision's ``fasterrcnn_resnet50_fpn``, or of this on another ResNet.

        Those published were trained with ``norm_epsilon=PUBLISHED_EPSILON`` and know 90 classes.

        Raises:
            DataError: the file is missing, no checkpoint, or of another network.
        """
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
            self.load_state_dict(_renamed(_without_counters(weights)), strict=True)
        except (OSError, pickle.UnpicklingError, RuntimeError, AttributeError, EOFError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"{path}: is not a torchvision Faster R-CNN of {self.config.backbone} with a pyramid and "
                f"{len(self.config.names)} classes besides the background ({reason})"
            ) from error

    @torch.no_grad()
    def start_from_torchvision(self, path: Path) -> set[str]:
        """Begin with weights that torchvision published for COCO; the classes that are called as there keep what was
        learned of them, the others start anew.

        Returns:
            The names of those classes.

        Raises:
            DataError: as :meth:`load_torchvision`.
        """
        published = FasterRcnnFpn(replace(self.config, names=COCO_CATEGORIES[1:]))
        published.load_torchvision(path)
        wanted = ("background", *self.config.names)
        rows = [
            (to, COCO_CATEGORIES.index(name)) for to, name in enumerate(wanted) if name in COCO_CATEGORIES
        ]
        for name, tensor in self.state_dict().items():
            given = published.state_dict()[name]
            if "box_predictor" in name:  # background, then a class after the other
                by_class = tensor.unflatten(0, (len(wanted), -1))
                for to, where in rows:
                    by_class[to] = given.unflatten(0, (len(COCO_CATEGORIES), -1))[where]
            else:
                tensor.copy_(given)
        return {wanted[to] for to, _ in rows[1:]}


def _without_counters(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Frozen batch norm does not count batches."""
    return {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}


def _renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of the files published before its convolutions became blocks, as ``fasterrcnn_resnet50_fpn_coco-258fb6c6.pth``,
    with today's names: ``inner_blocks.0.weight`` is ``inner_blocks.0.0.weight``."""
    return {
        _OLD_NAME.sub(r"\1.0.\2", _OLD_RPN_NAME.sub(r"\1.0.0.\2", name)): value
        for name, value in weights.items()
    }


def _plan(config: FasterRcnnFpnConfig) -> Proposing:
    return Proposing(
        sizes=tuple((size,) for size in config.anchor_sizes),
        ratios=config.anchor_ratios,
        entering=config.proposals,
        count=config.proposals,
        entering_training=2000,
        count_training=2000,
        centre=0.0,
        crossing=True,
    )
