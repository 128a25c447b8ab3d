"""YOLO: a picture to boxes in one pass (Redmon, Divvala, Girshick, Farhadi 2016, arXiv 1506.02640).

The picture is divided into S x S cells. Each cell says how probable the C classes are if an object's
centre lies in it, and predicts K boxes with a confidence each: probability of an object times the IoU
that the box has with it. The whole is one regression with squared errors, on two fully connected layers
that see the entire picture.

Here the grid is ``rows`` x ``columns``: the paper stretches pictures to a square and lays 7 x 7 over
them; lookout keeps their shape, and 7 x 9 keeps the cells of a 4:3 input square.

Knows nothing of data, checkpoints or ONNX; suppression of overlapping boxes is not part of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.backbones import build_backbone
from models.boxes import cxcywh_to_xyxy, paired_iou
from models.detector import Detector
from models.target import Target

COORDINATE_WEIGHT = 5.0
NO_OBJECT_WEIGHT = 0.5
"""The paper's two lambdas: most cells are empty, and would drown what the others learn."""

LEAK = 0.1
DROPOUT = 0.5


@dataclass(frozen=True, slots=True)
class YoloV1Config:
    """All that is needed to build the network again."""

    names: tuple[str, ...]
    input_height: int = 320
    input_width: int = 416
    backbone: str = "efficientnet_lite0"
    rows: int = 7
    columns: int = 9
    boxes: int = 2
    """K, the boxes that each cell predicts; the paper calls it B."""
    width: int = 128
    """Channels of the convolutions after the backbone; the paper has 1024."""
    head: Literal["connected", "convolutional"] = "connected"
    """``convolutional``: a 1x1 convolution in place of the two layers, on a grid of stride 32."""
    hidden: int = 512
    """Width of the first fully connected layer; the paper has 4096."""
    frozen_norm: bool = True
    """False: batch norm learns its statistics, as a backbone without ImageNet weights needs."""


@dataclass(frozen=True, slots=True)
class Cells:
    """What the S = rows x columns cells of B pictures predict."""

    boxes: Tensor
    """(B, S, K, 4): x, y of the centre within its cell, 0 to 1; square roots of width and height, where
    1 is the whole input."""
    confidences: Tensor
    """(B, S, K)."""
    classes: Tensor
    """(B, S, C): probabilities, given an object."""


class YoloV1(Detector):
    """The whole detector."""

    family = "yolo-v1"
    config: YoloV1Config

    def __init__(self, config: YoloV1Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config.backbone, frozen_norm=config.frozen_norm)
        self.extra = _convolutions(self.backbone.trunk_channels, config.width)
        outputs = config.boxes * 5 + len(config.names)
        channels, rows, columns = self._features()
        if config.head == "convolutional":
            if (config.rows, config.columns) != (rows, columns):
                raise ValueError(
                    f"rows and columns are {config.rows} and {config.columns}; a convolutional head has a cell "
                    f"for every one of its features, here {rows} and {columns}"
                )
            self.head: nn.Module = nn.Conv2d(channels, outputs, 1)
        else:
            self.head = nn.Sequential(
                nn.Flatten(),
                nn.Linear(channels * rows * columns, config.hidden),
                nn.LeakyReLU(LEAK),
                nn.Dropout(DROPOUT),
                nn.Linear(config.hidden, outputs * config.rows * config.columns),
                nn.Unflatten(1, (outputs, config.rows, config.columns)),
            )

    @torch.no_grad()
    def _features(self) -> torch.Size:
        """What the convolutions leave of one picture: channels, height, width."""
        shape = (1, 3, self.config.input_height, self.config.input_width)
        features: Tensor = self.eval().extra(self.backbone.trunk(torch.zeros(shape)))
        self.train()
        return features.shape[1:]

    def normalise(self, images: Tensor) -> Tensor:
        return self.backbone.normalise(images)

    def forward(self, images: Tensor) -> Cells:
        """What the cells predict for normalised images (B, 3, H, W); S runs row by row."""
        raw = self.head(self.extra(self.backbone.trunk(images)))  # (B, 5 K + C, rows, columns)
        flat = raw.flatten(2).transpose(1, 2)  # (B, S, 5 K + C)
        boxes, confidences, classes = flat.split(
            [4 * self.config.boxes, self.config.boxes, len(self.config.names)], 2
        )
        return Cells(boxes.unflatten(2, (self.config.boxes, 4)), confidences, classes)

    def decode(self, images: Tensor, proposals: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Candidates, K a cell; a score is the box's confidence times the cell's class probability."""
        cells = self(images)
        size = torch.tensor([images.shape[3], images.shape[2]] * 2, device=images.device)
        boxes = corners(cells.boxes.float(), self.config.rows, self.config.columns) * size
        scores = (
            cells.confidences.float().clamp(0, 1)[..., None] * cells.classes.float().clamp(0, 1)[:, :, None]
        )
        return boxes.flatten(1, 2), scores.flatten(1, 2)  # (B, S K, 4), (B, S K, C)

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        cells = self(images)
        with torch.autocast(images.device.type, enabled=False):
            cells = Cells(cells.boxes.float(), cells.confidences.float(), cells.classes.float())
            size = (images.shape[2], images.shape[3])
            return yolo_loss(cells, targets, self.config.rows, self.config.columns, *size)

    def start_from_imagenet(self) -> None:
        self.backbone.load_imagenet()

    def early(self, blocks: int) -> Iterable[nn.Module]:
        return self.backbone.early(blocks)


def _convolutions(inputs: int, width: int) -> nn.Sequential:
    """The paper's four 3x3 convolutions after the pretrained ones, the second of stride 2."""
    layers: list[nn.Module] = []
    for stride in (1, 2, 1, 1):
        layers += [nn.Conv2d(inputs, width, 3, stride, 1), nn.LeakyReLU(LEAK)]
        inputs = width
    return nn.Sequential(*layers)


def corners(boxes: Tensor, rows: int, columns: int) -> Tensor:
    """xyxy (..., S, K, 4), where 1 is the whole input, of boxes (..., S, K, 4) as in :class:`Cells`."""
    cell = torch.arange(rows * columns, device=boxes.device)
    place = torch.stack([cell % columns, cell // columns], 1)[:, None]  # (S, 1, 2): column, row
    grid = torch.tensor([columns, rows], device=boxes.device)
    return cxcywh_to_xyxy(torch.cat([(boxes[..., :2] + place) / grid, boxes[..., 2:].square()], -1))


def yolo_loss(
    cells: Cells, targets: list[Target], rows: int, columns: int, input_height: int, input_width: int
) -> dict[str, Tensor]:
    """The paper's loss, summed over a picture and averaged over the batch.

    A cell learns one object, as it predicts one set of classes: of several whose centres it holds, the
    largest. Of its boxes the one with the highest IoU with the object is responsible for it (where none
    overlaps it, the one that is nearest in its four numbers), and has that IoU as its wanted confidence; all
    other boxes in the picture have 0, but for cells at ignored places, which want nothing. Cells in areas
    that are only partly annotated count as anywhere else.

    Args:
        cells: float32 predictions.
        targets: B pictures' ground truth, in input pixels.
    """
    found = corners(cells.boxes, rows, columns)  # (B, S, K, 4)
    size = cells.boxes.new_tensor([input_width, input_height] * 2)
    grid = cells.boxes.new_tensor([columns, rows])
    centre, extent, confidence, background, classes = cells.boxes.new_zeros(5).unbind()
    for picture, target in enumerate(targets):
        truth = target.boxes / size  # (M, 4)
        where, offsets, chosen = _assign(truth, grid)
        truth, wanted_classes = truth[chosen], target.classes[chosen]
        predicted = cells.boxes[picture, where]  # (M', K, 4)
        wanted = torch.cat([offsets, (truth[:, 2:] - truth[:, :2]).sqrt()], 1)  # (M', 4), as in Cells
        box, ious = _responsible(predicted, wanted, found[picture, where].detach(), truth)
        row = torch.arange(len(where), device=where.device)
        errors = (predicted[row, box] - wanted).square()
        centre = centre + errors[:, :2].sum()
        extent = extent + errors[:, 2:].sum()
        confidence = confidence + (cells.confidences[picture, where, box] - ious).square().sum()
        empty = ~_forgiven(target.ignored / size, rows, columns)[:, None].repeat(1, cells.boxes.shape[2])
        empty[where, box] = False
        background = background + cells.confidences[picture][empty].square().sum()
        one_hot = nn.functional.one_hot(wanted_classes, cells.classes.shape[2])
        classes = classes + (cells.classes[picture, where] - one_hot).square().sum()
    share = 1 / max(1, len(targets))
    return {
        "centre": COORDINATE_WEIGHT * share * centre,
        "size": COORDINATE_WEIGHT * share * extent,
        "confidence": share * confidence,
        "no_object": NO_OBJECT_WEIGHT * share * background,
        "class": share * classes,
    }


def _assign(truth: Tensor, grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The cell of every object that a cell learns.

    Args:
        truth: (M, 4) xyxy, where 1 is the whole input.
        grid: (2,): columns and rows.

    Returns:
        cells int64 (M',), each once; the centres within them (M', 2), 0 to 1; which objects int64 (M',).
    """
    largest_first = torch.argsort((truth[:, 2:] - truth[:, :2]).prod(1), descending=True, stable=True)
    centres = (truth[:, :2] + truth[:, 2:]) / 2 * grid  # (M, 2) in cells
    place = torch.minimum(centres.floor(), grid - 1).clamp(min=0)
    cell = (place[:, 1] * grid[0] + place[:, 0]).long()
    cells, taken = cell.tolist(), dict[int, int]()
    for index in largest_first.tolist():
        taken.setdefault(cells[index], index)
    chosen = torch.tensor(list(taken.values()), dtype=torch.int64, device=truth.device)
    return cell[chosen], (centres - place)[chosen], chosen


@torch.no_grad()
def _responsible(predicted: Tensor, wanted: Tensor, found: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Which of its cell's K boxes learns each of M objects, int64 (M,), and its IoU with it (M,).

    Args:
        predicted, wanted: (M, K, 4) and (M, 4) as in :class:`Cells`.
        found, truth: the same as xyxy.
    """
    overlaps = paired_iou(found, truth[:, None])  # (M, K)
    distance = (predicted - wanted[:, None]).square().sum(2)
    box = torch.where(overlaps.amax(1) > 0, overlaps.argmax(1), distance.argmin(1))
    return box, overlaps.gather(1, box[:, None])[:, 0]


def _forgiven(ignored: Tensor, rows: int, columns: int) -> Tensor:
    """bool (S,): cells that hold the centre of an ignored box (K, 4), or have their own centre inside one."""
    cell = torch.arange(rows * columns, device=ignored.device)
    low = torch.stack([cell % columns / columns, cell // columns / rows], 1)[:, None]  # (S, 1, 2)
    extent = ignored.new_tensor([1 / columns, 1 / rows])
    middle, centres = low + extent / 2, (ignored[:, :2] + ignored[:, 2:]) / 2
    covered = (middle > ignored[:, :2]) & (middle < ignored[:, 2:])
    holds = (centres >= low) & (centres < low + extent)
    return (covered.all(2) | holds.all(2)).any(1)
