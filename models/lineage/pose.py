"""A pose as regression, looked at again and again: DeepPose (Toshev & Szegedy 2014, arXiv 1312.4659).

Localization with K points in place of a box. The first stage regresses all K joints from the whole picture,
as parts of its size. Each later stage cuts a square out of the picture around every joint's estimate, whose side
is a part of the pose's diameter, brings it to one size, and regresses how far the joint is from its centre. All
stages are learned with L2, each by its own network, and later ones on squares that are as far off as the stage
before, drawn from a normal distribution (section 3.2).

What differs from the paper: stages are learned together, so how far one is off is taken from the batch, for all
joints as one and around 0; the first stage sees the whole picture and not the person's box, and no less of it than
there is, so that squares only show more of a pose smaller than ``crop``; and the diameter, there from a shoulder to
the opposite hip, is the diagonal of all joints, so that any landmarks will do.

As a :class:`Detector`, the joints are its classes and a picture shows one body. A joint's box is a square of
fixed size around it: only its centre says something, in annotations as well. One that the picture's edge or a
crop has cut has lost its centre: its joint is neither there nor missing. Its score is the probability
that the joint is in the picture, which the first stage learns besides. Mirror images turn left into right:
train it without them (``augmentation.flip: 0``).

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
from models.lineage.dense import fully_connected
from models.lineage.map_shape import map_shape
from models.target import Target

POINT_WEIGHT = 50.0
"""As :data:`models.lineage.localization.BOX_WEIGHT`."""

_WHOLE = 0.75
"""A joint's square whose shorter side is less of the longer one has been cut."""

SMALLEST_SIDE_PX = 16.0
"""Of a square: joints that all lie on one point have no diameter."""


@dataclass(frozen=True, slots=True)
class PoseConfig:
    """All that is needed to build the network again."""

    names: tuple[str, ...]
    """The K joints."""
    input_height: int = 320
    input_width: int = 416
    backbone: str = "efficientnet_lite0"
    stages: int = 3
    """The paper's number."""
    crop: int = 96
    """Height and width in pixels that a square is resampled to."""
    crop_part: float = 1.0
    """A square's side as a part of the pose's diameter."""
    joint_size: float = 24.0
    """Side of a joint's box in input pixels."""
    hidden: int = 256


class Pose(Detector):
    """The whole cascade."""

    family = "pose"
    config: PoseConfig

    def __init__(self, config: PoseConfig) -> None:
        super().__init__()
        if config.stages < 1:
            raise ValueError(f"stages is {config.stages}, expected at least 1")
        self.config = config
        self.backbone = nn.ModuleList(build_backbone(config.backbone) for _ in range(config.stages))
        joints = len(config.names)
        self.heads = nn.ModuleList()
        for stage in range(config.stages):
            size = (config.crop, config.crop) if stage else (config.input_height, config.input_width)
            channels, rows, columns = map_shape(self._stage(stage), *size)
            inputs = channels * (rows // 2) * (columns // 2)
            outputs = joints * (2 if stage else 3)  # the first also tells which joints there are
            self.heads.append(fully_connected(inputs, (config.hidden,), outputs, dropout=0.0))
        self._start_in_the_middle()

    def _stage(self, stage: int) -> Backbone:
        backbone = self.backbone[stage]
        assert isinstance(backbone, Backbone)
        return backbone

    @torch.no_grad()
    def _start_in_the_middle(self) -> None:
        """Joints start around the picture's centre, later stages by moving nothing."""
        for stage, head in enumerate(self.heads):
            assert isinstance(head, nn.Sequential)
            last = head[-1]
            assert isinstance(last, nn.Linear)
            nn.init.normal_(last.weight, std=0.001)
            last.bias.zero_()
            if stage == 0:
                last.bias[: 2 * len(self.config.names)] = 0.5

    def normalise(self, images: Tensor) -> Tensor:
        return self._stage(0).normalise(images)

    def _see(self, stage: int, images: Tensor) -> Tensor:
        """What a stage's network says of pictures (R, 3, h, w): (R, its outputs)."""
        maps = functional.max_pool2d(self._stage(stage).trunk(images), 2)
        out: Tensor = self.heads[stage](maps)
        return out.float()

    def _size(self, like: Tensor) -> Tensor:
        return like.new_tensor([self.config.input_width, self.config.input_height])

    def first(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The first stage: joints (B, K, 2), x and y in input pixels, and presence logits (B, K)."""
        joints = len(self.config.names)
        seen = self._see(0, images)
        parts = seen[:, : 2 * joints].reshape(-1, joints, 2)
        return parts * self._size(seen), seen[:, 2 * joints :]

    def sides(self, points: Tensor) -> Tensor:
        """The side of the squares (B,) in pixels around joints (B, K, 2)."""
        extent = points.amax(1) - points.amin(1)  # (B, 2)
        return (self.config.crop_part * extent.square().sum(1).sqrt()).clamp(min=SMALLEST_SIDE_PX)

    def displacements(self, stage: int, images: Tensor, centres: Tensor, sides: Tensor) -> Tensor:
        """How far each joint is from its square's centre, (B, K, 2), as parts of the square's side.

        The network tells of all joints in every square; each joint's own square is believed.
        """
        pictures, joints = centres.shape[:2]
        squares = crops(images, centres, sides, self.config.crop)  # (B * K, 3, crop, crop)
        seen = self._see(stage, squares).reshape(pictures, joints, joints, 2)  # square, then joint
        return torch.stack([seen[:, joint, joint] for joint in range(joints)], 1)

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Every stage's joints (B, K, 2) in input pixels, and the presence logits (B, K)."""
        points, presence = self.first(images)
        found = [points]
        for stage in range(1, self.config.stages):
            sides = self.sides(points)
            points = points + self.displacements(stage, images, points, sides) * sides[:, None, None]
            found.append(points)
        return found, presence

    def decode(self, images: Tensor, proposals: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The last stage's K joints, each under its own class alone."""
        found, presence = self(images)
        half = self.config.joint_size / 2
        boxes = torch.cat([found[-1] - half, found[-1] + half], -1)
        scores = presence.sigmoid()[:, :, None] * torch.eye(presence.shape[1], device=presence.device)
        return boxes, scores

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """The L2 loss of each stage's joints and the cross entropy of their presence."""
        points, seen, known = joints_of(targets, len(self.config.names))
        found, presence = self.first(images)
        doubt = functional.binary_cross_entropy_with_logits(presence, seen.float(), reduction="none")
        losses = {"presence": doubt[known].sum() / known.sum().clamp(min=1)}
        losses["stage 1"] = _squares((found - points) / self._size(found), seen)
        sides = self._true_sides(points, seen)
        spread = _spread(found.detach() - points, seen)
        for stage in range(1, self.config.stages):
            centres = points + torch.randn_like(points) * spread
            moved = self.displacements(stage, images, centres, sides)
            side = sides[:, None, None]
            losses[f"stage {stage + 1}"] = _squares(moved - (points - centres) / side, seen)
            spread = _spread((moved.detach() * side + centres) - points, seen)
        return losses

    def _true_sides(self, points: Tensor, seen: Tensor) -> Tensor:
        """As :meth:`sides`, of the joints (B, K) that are seen."""
        centre = (points * seen[..., None]).sum(1) / seen.sum(1).clamp(min=1)[:, None]
        return self.sides(torch.where(seen[..., None], points, centre[:, None]))

    def start_from_imagenet(self) -> None:
        for stage in range(self.config.stages):
            self._stage(stage).load_imagenet()

    def early(self, blocks: int) -> Iterable[nn.Module]:
        for stage in range(self.config.stages):
            yield from self._stage(stage).early(blocks)


def crops(images: Tensor, centres: Tensor, sides: Tensor, size: int) -> Tensor:
    """Squares of pictures, resampled bilinearly; what lies outside a picture is 0.

    Args:
        images: (B, 3, H, W).
        centres: (B, K, 2), x and y in pixels; 0.5 is the middle of the first.
        sides: (B,), in pixels.
        size: pixels of a resampled side.

    Returns:
        (B * K, 3, size, size), a picture's squares one after the other.
    """
    height, width = images.shape[2:]
    steps = (torch.arange(size, device=images.device) + 0.5) / size - 0.5
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    within = torch.stack([x, y], -1).reshape(1, 1, size * size, 2)
    where = centres[:, :, None] + within * sides[:, None, None, None]  # (B, K, size * size, 2)
    where = where * 2 / where.new_tensor([width, height]) - 1
    found = functional.grid_sample(images.float(), where, align_corners=False)  # (B, 3, K, size * size)
    return found.transpose(1, 2).reshape(-1, images.shape[1], size, size)


def joints_of(targets: list[Target], joints: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where the joints are, by the boxes of each class.

    Of several whole boxes of a class the first counts.

    Returns:
        float32 (B, K, 2), the centre of a whole box, else 0; bool (B, K), whether there is one; and bool (B, K),
        whether that is known: not where a box is cut, nor where there is none but an ignored one may be its.
    """
    device = targets[0].boxes.device
    points = torch.zeros(len(targets), joints, 2, device=device)
    seen = torch.zeros(len(targets), joints, dtype=torch.bool, device=device)
    known = torch.ones_like(seen)
    for picture, target in enumerate(targets):
        centres, sides = (
            (target.boxes[:, :2] + target.boxes[:, 2:]) / 2,
            target.boxes[:, 2:] - target.boxes[:, :2],
        )
        whole = sides.amin(1) >= _WHOLE * sides.amax(1)
        for joint in range(joints):
            of_joint = target.classes == joint
            rows = (of_joint & whole).nonzero()[:, 0]
            if len(rows):
                points[picture, joint], seen[picture, joint] = centres[rows[0]], True
            else:
                known[picture, joint] = not of_joint.any() and not len(target.ignored)
    return points, seen, known


def detected_joints(found: Tensor, wanted: Tensor, seen: Tensor, part: float) -> Tensor:
    """The share (K,) of each joint's pictures where it is found within ``part`` of the pose's diameter.

    The percentage of detected joints (PDJ) of the paper's evaluation, with the diagonal of the true joints
    for a diameter. A joint that no picture shows is NaN.

    Args:
        found: (B, K, 2).
        wanted: (B, K, 2).
        seen: bool (B, K), the joints that are annotated.
        part: such as 0.2.
    """
    infinite = torch.full_like(wanted, torch.inf)
    low = torch.where(seen[..., None], wanted, infinite).amin(1)
    high = torch.where(seen[..., None], wanted, -infinite).amax(1)
    diameter = (high - low).square().sum(-1).sqrt()  # (B,)
    near = (found - wanted).square().sum(-1).sqrt() <= part * diameter[:, None]
    return (near & seen).sum(0) / seen.sum(0)


def _squares(errors: Tensor, seen: Tensor) -> Tensor:
    """The weighted L2 loss of errors (B, K, 2), a mean over the joints that are seen."""
    return POINT_WEIGHT * (errors[seen].square().sum() / 2) / seen.sum().clamp(min=1)


def _spread(errors: Tensor, seen: Tensor) -> Tensor:
    """The root mean square (2,) of errors (B, K, 2) in pixels, in x and in y."""
    return (errors[seen].square().sum(0) / seen.sum().clamp(min=1)).sqrt()
