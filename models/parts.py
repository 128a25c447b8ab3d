"""What a recipe says of its network: one part a family, whose keys are its configuration's.

Knows nothing of torch.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Side = Annotated[int, Field(ge=64, le=2048, multiple_of=32)]
AnchorSizes = Annotated[
    tuple[Annotated[int, Field(ge=4, le=4096)], ...], Field(min_length=1, max_length=9, strict=False)
]
AnchorRatios = Annotated[
    tuple[Annotated[float, Field(ge=0.05, le=20)], ...], Field(min_length=1, max_length=9, strict=False)
]
Proposals = Annotated[int, Field(ge=4, le=4000)]
BackboneName = Literal[
    "efficientnet_lite0",
    "alexnet",
    "zfnet",
    "vgg16",
    "googlenet",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "mobilenet_v2",
]
"""See :data:`models.backbones.BACKBONES`."""
Hidden = Annotated[int, Field(ge=8, le=8192)]
"""Width of fully connected layers."""


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class NetworkPart(Strict):
    """What every family has."""

    takes_proposals: ClassVar[bool] = False
    """Whether it needs ``data.proposals``."""
    by_cell: ClassVar[bool] = False
    """Whether it predicts cell by cell, in pictures of any size: can have a teacher, and change sizes."""
    by_block: ClassVar[bool] = False
    """Whether its blocks can learn each what a teacher's gives, see :mod:`models.blockwise`."""
    input_height: Side = 320
    input_width: Side = 416
    pretrained: bool = True
    """Start the backbone from ImageNet weights."""
    start: str | None = None
    """Start everything from another model of the family instead: a checkpoint, a file that ``lookout export`` made of
    one, the name of an embedded model, or, a yolox, one of Megvii's .pth files. See :mod:`models.start`."""

    def config(self) -> dict[str, Any]:
        """The family's configuration, without its names."""
        return self.model_dump(exclude={"family", "pretrained", "start"})


class YoloxPart(NetworkPart):
    """See :class:`models.yolox.YoloxConfig`."""

    by_cell: ClassVar[bool] = True
    family: Literal["lookout-yolox"] = "lookout-yolox"
    backbone_blocks: Annotated[int, Field(ge=12, le=16)] = 13
    skipped_blocks: Annotated[tuple[int, ...], Field(strict=False)] = (2, 7, 9, 12)
    width: Annotated[int, Field(ge=8, le=512)] = 80


class MegviiYoloxPart(NetworkPart):
    """See :class:`models.megvii_yolox.MegviiYoloxConfig`."""

    by_cell: ClassVar[bool] = True
    by_block: ClassVar[bool] = True
    family: Literal["yolox"]
    pretrained: Literal[False] = False
    size: Literal["nano", "tiny", "s", "m", "l", "x"] = "s"


class YoloV1Part(NetworkPart):
    """See :class:`models.lineage.yolo_v1.YoloV1Config`."""

    family: Literal["yolo-v1"]
    backbone: BackboneName = "efficientnet_lite0"
    rows: Annotated[int, Field(ge=1, le=64)] = 7
    columns: Annotated[int, Field(ge=1, le=64)] = 9
    boxes: Annotated[int, Field(ge=1, le=16)] = 2
    width: Annotated[int, Field(ge=8, le=1024)] = 128
    head: Literal["connected", "convolutional"] = "connected"
    hidden: Hidden = 512
    frozen_norm: bool = True


class FasterRcnnPart(NetworkPart):
    """See :class:`models.lineage.faster_rcnn.FasterRcnnConfig`."""

    family: Literal["faster-rcnn"]
    backbone: BackboneName = "efficientnet_lite0"
    pooling: Literal["align", "max"] = "align"
    anchor_sizes: AnchorSizes = (48, 96, 192)
    anchor_ratios: AnchorRatios = (0.5, 1.0, 2.0)
    rpn_width: Annotated[int, Field(ge=8, le=2048)] = 512
    proposals: Proposals = 300
    regions: Proposals = 128
    training: Literal["joint", "alternating"] = "joint"
    frozen_norm: bool = True


class FasterRcnnFpnPart(NetworkPart):
    """See :class:`models.lineage.faster_rcnn_fpn.FasterRcnnFpnConfig`."""

    family: Literal["faster-rcnn-fpn"]
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    anchor_sizes: Annotated[AnchorSizes, Field(min_length=5, max_length=5)] = (32, 64, 128, 256, 512)
    anchor_ratios: AnchorRatios = (0.5, 1.0, 2.0)
    proposals: Proposals = 1000
    regions: Proposals = 512
    head_width: Annotated[int, Field(ge=8, le=8192)] = 1024
    norm_epsilon: Annotated[float, Field(ge=0, le=0.1)] = 1e-5


class HogPart(NetworkPart):
    """See :class:`models.lineage.hog_detector.HogConfig`."""

    family: Literal["hog-svm"]
    pretrained: Literal[False] = False
    start: None = None
    window_height: Annotated[int, Field(ge=32, le=512, multiple_of=8)] = 128
    window_width: Annotated[int, Field(ge=32, le=512, multiple_of=8)] = 64
    margin: Annotated[int, Field(ge=0, le=64)] = 16
    largest_scale: Annotated[float, Field(ge=0.5, le=4)] = 2.0
    scales_per_octave: Annotated[int, Field(ge=1, le=16)] = 5
    cost: Positive = 0.01
    pictures: Annotated[int, Field(ge=1)] = 400
    negatives: Annotated[int, Field(ge=1, le=1000)] = 10
    rounds: Annotated[int, Field(ge=0, le=10)] = 2


class DpmPart(NetworkPart):
    """See :class:`models.lineage.dpm.DpmConfig`."""

    family: Literal["dpm"]
    pretrained: Literal[False] = False
    start: None = None
    window_height: Annotated[int, Field(ge=32, le=512, multiple_of=8)] = 64
    window_width: Annotated[int, Field(ge=32, le=512, multiple_of=8)] = 32
    margin: Annotated[int, Field(ge=0, le=64)] = 8
    components: Annotated[int, Field(ge=1, le=8)] = 2
    parts: Annotated[int, Field(ge=1, le=32)] = 6
    part_side: Annotated[int, Field(ge=1, le=16)] = 4
    reach: Annotated[int, Field(ge=0, le=16)] = 4
    largest_scale: Annotated[float, Field(ge=0.5, le=4)] = 2.0
    scales_per_octave: Annotated[int, Field(ge=1, le=16)] = 4
    cost: Positive = 0.003
    pictures: Annotated[int, Field(ge=1)] = 300
    negatives: Annotated[int, Field(ge=1, le=1000)] = 20
    rounds: Annotated[int, Field(ge=1, le=10)] = 3


class FastRcnnPart(NetworkPart):
    """See :class:`models.lineage.fast_rcnn.FastRcnnConfig`."""

    takes_proposals = True
    family: Literal["fast-rcnn"]
    backbone: BackboneName = "efficientnet_lite0"
    pooling: Literal["max", "align"] = "max"
    rois: Annotated[int, Field(ge=4, le=1024)] = 64
    background_iou: Annotated[float, Field(ge=0, lt=0.5)] = 0.1


class RcnnPart(NetworkPart):
    """See :class:`models.lineage.rcnn.RcnnConfig`."""

    takes_proposals = True
    family: Literal["rcnn"]
    start: None = None
    backbone: BackboneName = "efficientnet_lite0"
    crop: Annotated[int, Field(ge=32, le=512)] = 112
    context: Annotated[int, Field(ge=0, le=64)] = 16
    steps: Annotated[int, Field(ge=0, le=1000000)] = 200
    learning_rate: Positive = 0.001
    pictures: Annotated[int, Field(ge=1)] = 200
    regions: Proposals = 2000
    rounds: Annotated[int, Field(ge=0, le=10)] = 2
    cost: Positive = 0.001
    ridge: Positive = 1000.0


class LocalizationPart(NetworkPart):
    """See :class:`models.lineage.localization.LocalizationConfig`."""

    family: Literal["localization"]
    backbone: BackboneName = "efficientnet_lite0"
    head: Literal["conv", "fc"] = "conv"
    class_specific: bool = False
    boxes: Annotated[int, Field(ge=1, le=100)] = 6
    hidden: Hidden = 512
    frozen_norm: bool = True


class PosePart(NetworkPart):
    """See :class:`models.lineage.pose.PoseConfig`."""

    family: Literal["pose"]
    backbone: BackboneName = "efficientnet_lite0"
    stages: Annotated[int, Field(ge=1, le=10)] = 3
    crop: Side = 96
    crop_part: Annotated[float, Field(gt=0, le=4)] = 1.0
    joint_size: Positive = 24.0
    hidden: Hidden = 256


class OverfeatPart(NetworkPart):
    """See :class:`models.lineage.overfeat.OverfeatConfig`."""

    family: Literal["overfeat"]
    backbone: BackboneName | Literal["overfeat_fast"] = "efficientnet_lite0"
    backbone_width: Annotated[float, Field(gt=0, le=1)] = 1.0
    scales: Annotated[
        tuple[Annotated[float, Field(gt=0, le=4)], ...], Field(min_length=1, max_length=20, strict=False)
    ] = (0.25, 0.35, 0.5, 0.7, 1.0)
    pool: Annotated[int, Field(ge=1, le=4)] = 2
    window_height: Annotated[int, Field(ge=1, le=20)] = 2
    window_width: Annotated[int, Field(ge=1, le=20)] = 1
    offsets: bool = True
    hidden: Hidden = 512


def _family(value: Any) -> str:
    """Which part a recipe's ``model`` is: a family that is not named is lookout's own."""
    family = value.get("family", _DEFAULT) if isinstance(value, dict) else getattr(value, "family", _DEFAULT)
    return str(family)


_DEFAULT = "lookout-yolox"

ModelPart = Annotated[
    Annotated[YoloxPart, Tag("lookout-yolox")]
    | Annotated[MegviiYoloxPart, Tag("yolox")]
    | Annotated[YoloV1Part, Tag("yolo-v1")]
    | Annotated[FasterRcnnPart, Tag("faster-rcnn")]
    | Annotated[FasterRcnnFpnPart, Tag("faster-rcnn-fpn")]
    | Annotated[HogPart, Tag("hog-svm")]
    | Annotated[DpmPart, Tag("dpm")]
    | Annotated[FastRcnnPart, Tag("fast-rcnn")]
    | Annotated[RcnnPart, Tag("rcnn")]
    | Annotated[LocalizationPart, Tag("localization")]
    | Annotated[PosePart, Tag("pose")]
    | Annotated[OverfeatPart, Tag("overfeat")],
    Discriminator(_family),
]
