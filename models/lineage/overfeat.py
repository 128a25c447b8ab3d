"""OverFeat: a classifier and a box regressor that slide over the picture (Sermanet et al. 2014, arXiv 1312.6229).

The trunk runs once over the picture at each of several scales. Its map is pooled, and two heads of fully
connected layers look at every window of it: one says which class is in the window or that none is, the other
where the object's edges are, as parts of the window's width and height. Both are convolutions
(:mod:`models.lineage.dense`), so looking everywhere costs little more than looking once. With ``offsets`` the
last pooling is evaluated from every origin, and windows start at each cell of the map; without, at every
``pool``-th.

When is a dense evaluation the same as cropping the windows? With ``overfeat_fast``, a network that never pads,
exactly: a window is the pixels its map's cells see, 231 x 231 for 6 x 6 cells. Every other backbone pads its
convolutions, and what a cell sees depends on what lies around its window; there a window is a crop of the
trunk's *map*, and its place in the picture is that of its cells.

The regressor is shared by all classes, which the paper found better than one a class, and learned only on
windows that hold an object (the paper: at least half of it). Classifier and regressor are learned together
and not one after the other.

``decode`` gives every window of every scale. The exported graph ends in the contract's non-maximum
suppression; the paper's greedy merging, whose result has no fixed size, is a function of the host
(:mod:`models.lineage.box_merging`).

Knows nothing of data, checkpoints or ONNX.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbones import build_backbone
from models.backbones.backbone import Backbone
from models.detector import Detector
from models.lineage.dense import as_convolutions, fully_connected
from models.lineage.map_shape import map_shape
from models.lineage.overfeat_net import FIELD, OverfeatFast
from models.lineage.windows import FILLED, Sampled, sample, sliding_windows
from models.target import Target

BOX_WEIGHT = 10.0
"""Edges are parts of the window: an edge that is a tenth of it away costs 0.005 before this."""


@dataclass(frozen=True, slots=True)
class OverfeatConfig:
    """All that is needed to build the network again."""

    names: tuple[str, ...]
    input_height: int = 320
    input_width: int = 416
    backbone: str = "efficientnet_lite0"
    backbone_width: float = 1.0
    """Channels of ``overfeat_fast`` as a part of the paper's; no other backbone has it."""
    scales: tuple[float, ...] = (0.25, 0.35, 0.5, 0.7, 1.0)
    """The picture's sides as parts of the input's; a window shows ever smaller objects."""
    pool: int = 2
    """Side of the last pooling; 2 in the paper's fast network, 3 in its accurate one."""
    window_height: int = 2
    """Pooled cells of a window; the paper's windows are square, of 6 x 6 or 5 x 5. These suit people."""
    window_width: int = 1
    offsets: bool = True
    """Evaluate every origin of the last pooling, not only the first."""
    hidden: int = 512
    """Width of the fully connected layers; 3072 and 4096 in the paper."""


@dataclass(frozen=True, slots=True)
class Level:
    """One scale of a detector: the picture's size there, and the windows on it."""

    height: int
    width: int
    windows: Tensor
    """float32 (N, 4), xyxy in input pixels; a row after the other."""


class Overfeat(Detector):
    """The whole detector."""

    family = "overfeat"
    config: OverfeatConfig

    def __init__(self, config: OverfeatConfig) -> None:
        super().__init__()
        if not config.scales:
            raise ValueError("scales is empty, expected at least one")
        self.config = config
        own = config.backbone == "overfeat_fast"
        self.backbone: Backbone = (
            OverfeatFast(config.backbone_width) if own else build_backbone(config.backbone)
        )
        self._field = FIELD if own else self.backbone.stride  # pixels that a window's first cell stands for
        inputs = self.backbone.trunk_channels * config.window_height * config.window_width
        self.classifier = self._head(inputs, len(config.names) + 1, dropout=0.5)
        self.regressor = self._head(inputs, 4, dropout=0.0)
        self._start_in_the_middle()
        self.levels = [self._level(scale) for scale in config.scales]
        down, across = self._window
        self._aspect = across / down  # but for the scales' rounding to whole strides

    def _head(self, inputs: int, outputs: int, dropout: float) -> nn.Sequential:
        """Dropout is the classifier's, as in the paper; what is to be a number does not take it well."""
        config = self.config
        head = fully_connected(inputs, (config.hidden, config.hidden), outputs, dropout)
        spread = config.pool if config.offsets else 1
        return as_convolutions(head, config.window_height, config.window_width, spread)

    @torch.no_grad()
    def _start_in_the_middle(self) -> None:
        """Let every box start as what fills its window; on large features L2 would start with outliers."""
        last = self.regressor[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.normal_(last.weight, std=0.001)
        margin = (1 - FILLED) / 2
        last.bias.copy_(torch.tensor([margin, margin, 1 - margin, 1 - margin]))

    @property
    def _window(self) -> tuple[int, int]:
        """Height and width of a window in pixels of its scale."""
        cells = [size * self.config.pool for size in (self.config.window_height, self.config.window_width)]
        down, across = (self._field + (count - 1) * self.backbone.stride for count in cells)
        return down, across

    @torch.no_grad()
    def _level(self, scale: float) -> Level:
        """The windows of one scale, as many as its map has room for.

        Raises:
            ValueError: the picture is smaller than a window there.
        """
        config, stride = self.config, self.backbone.stride
        height, width = (
            max(1, round(side * scale / stride)) * stride
            for side in (config.input_height, config.input_width)
        )
        cells = [size * config.pool for size in (config.window_height, config.window_width)]
        down, across = self._window
        if height < down or width < across:
            raise ValueError(
                f"scales: at {scale} the picture has {width}x{height} pixels and a window {across}x{down}; "
                "leave out the scale, or enlarge the input"
            )
        step = 1 if config.offsets else config.pool
        _, *size = map_shape(self.backbone, height, width)
        rows, columns = ((have - need) // step + 1 for have, need in zip(size, cells, strict=True))
        windows = sliding_windows(rows, columns, step * stride, down, across)
        x, y = config.input_width / width, config.input_height / height
        return Level(height, width, windows * torch.tensor([x, y, x, y]))

    def normalise(self, images: Tensor) -> Tensor:
        return self.backbone.normalise(images)

    @property
    def windows(self) -> Tensor:
        """Every window of every scale, float32 (N, 4), xyxy in input pixels, in the order of ``forward``."""
        return torch.cat([level.windows for level in self.levels])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Raw predictions of normalised images (B, 3, H, W) in all windows.

        Returns:
            logits (B, N, C + 1), the last of which is background, and edges (B, N, 4): x1, y1, x2, y2 from
            the window's corner, as parts of its width and height.
        """
        found = [self._scan(self._scaled(images, level)) for level in self.levels]
        logits, edges = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        return logits, edges

    @staticmethod
    def _scaled(images: Tensor, level: Level) -> Tensor:
        size = (level.height, level.width)
        if images.shape[2:] == size:
            return images
        return functional.interpolate(images, size, mode="bilinear", align_corners=False)

    def _scan(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Both heads at every window of a picture, (B, n, C + 1) and (B, n, 4)."""
        stride = 1 if self.config.offsets else self.config.pool
        pooled = functional.max_pool2d(self.backbone.trunk(images), self.config.pool, stride)
        logits, edges = (
            head(pooled).flatten(2).transpose(1, 2) for head in (self.classifier, self.regressor)
        )
        return logits, edges

    def decode(self, images: Tensor, proposals: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A box a window; a score is the class's probability."""
        logits, edges = self(images)
        return self._boxes(edges.float()), logits.float().softmax(-1)[..., :-1]

    def _boxes(self, edges: Tensor) -> Tensor:
        """Edges (B, N, 4) as parts of their windows to xyxy in input pixels, inside the picture."""
        windows = self.windows.to(edges.device)
        corners = windows[:, :2].repeat(1, 2) + edges * (windows[:, 2:] - windows[:, :2]).repeat(1, 2)
        limit = corners.new_tensor([self.config.input_width, self.config.input_height])
        first, second = corners[..., :2].minimum(limit), corners[..., 2:].minimum(limit)
        return torch.cat([first.minimum(second), first.maximum(second)], -1).clamp(min=0)

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Cross entropy of the windows that are sampled, and L2 of the edges of those with an object."""
        logits, edges = self(images)
        windows = self.windows.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            class_sum, box_sum = logits.new_zeros(2, dtype=torch.float32).unbind()
            counted = positives = 0
            for one, its_edges, target in zip(logits.float(), edges.float(), targets, strict=True):
                chosen = sample(windows, self._aspect, 1 - one.detach().softmax(-1)[:, -1], target)
                class_sum = class_sum + _class_loss(one, chosen, target)
                box_sum = box_sum + _box_loss(its_edges, windows, chosen, target)
                counted += len(chosen.positives) + len(chosen.negatives)
                positives += len(chosen.positives)
        return {"class": class_sum / max(1, counted), "box": BOX_WEIGHT * box_sum / max(1, positives)}

    def start_from_imagenet(self) -> None:
        self.backbone.load_imagenet()

    def early(self, blocks: int) -> Iterable[nn.Module]:
        return self.backbone.early(blocks)


def _class_loss(logits: Tensor, chosen: Sampled, target: Target) -> Tensor:
    """The summed cross entropy of one picture's sampled windows; logits (N, C + 1)."""
    rows = torch.cat([chosen.positives, chosen.negatives])
    background = torch.full_like(chosen.negatives, logits.shape[1] - 1)
    labels = torch.cat([target.classes[chosen.objects], background])
    return functional.cross_entropy(logits[rows], labels, reduction="sum")


def _box_loss(edges: Tensor, windows: Tensor, chosen: Sampled, target: Target) -> Tensor:
    """The summed L2 of one picture's windows with an object: half the squares of the edges' errors."""
    within = windows[chosen.positives]
    size = (within[:, 2:] - within[:, :2]).repeat(1, 2)
    wanted = (target.boxes[chosen.objects] - within[:, :2].repeat(1, 2)) / size
    return (edges[chosen.positives] - wanted).square().sum() / 2
