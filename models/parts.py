"""What a recipe says of its network: one part a family, whose keys are its configuration's.

Knows nothing of torch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Side = Annotated[int, Field(ge=64, le=2048, multiple_of=32)]
Hidden = Annotated[int, Field(ge=8, le=8192)]
"""Width of fully connected layers."""


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class NetworkPart(Strict):
    """What every family has."""

    input_height: Side = 320
    input_width: Side = 416
    pretrained: bool = True
    """Start the backbone from ImageNet weights."""

    def config(self) -> dict[str, Any]:
        """The family's configuration, without its names."""
        return self.model_dump(exclude={"family", "pretrained"})


class YoloxPart(NetworkPart):
    """See :class:`models.yolox.YoloxConfig`."""

    family: Literal["lookout-yolox"] = "lookout-yolox"
    backbone_blocks: Annotated[int, Field(ge=12, le=16)] = 13
    width: Annotated[int, Field(ge=8, le=512)] = 80


class YoloV1Part(NetworkPart):
    """See :class:`models.lineage.yolo_v1.YoloV1Config`."""

    family: Literal["yolo-v1"]
    backbone: str = "efficientnet_lite0"
    rows: Annotated[int, Field(ge=1, le=64)] = 7
    columns: Annotated[int, Field(ge=1, le=64)] = 9
    boxes: Annotated[int, Field(ge=1, le=16)] = 2
    width: Annotated[int, Field(ge=8, le=1024)] = 128
    head: Literal["connected", "convolutional"] = "connected"
    hidden: Annotated[int, Field(ge=8, le=4096)] = 512


class LocalizationPart(NetworkPart):
    """See :class:`models.lineage.localization.LocalizationConfig`."""

    family: Literal["localization"]
    backbone: str = "efficientnet_lite0"
    head: Literal["conv", "fc"] = "conv"
    class_specific: bool = False
    boxes: Annotated[int, Field(ge=1, le=100)] = 6
    hidden: Hidden = 512


class PosePart(NetworkPart):
    """See :class:`models.lineage.pose.PoseConfig`."""

    family: Literal["pose"]
    backbone: str = "efficientnet_lite0"
    stages: Annotated[int, Field(ge=1, le=10)] = 3
    crop: Side = 96
    crop_part: Annotated[float, Field(gt=0, le=4)] = 1.0
    joint_size: Positive = 24.0
    hidden: Hidden = 256


class OverfeatPart(NetworkPart):
    """See :class:`models.lineage.overfeat.OverfeatConfig`."""

    family: Literal["overfeat"]
    backbone: str = "efficientnet_lite0"
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
    | Annotated[YoloV1Part, Tag("yolo-v1")]
    | Annotated[LocalizationPart, Tag("localization")]
    | Annotated[PosePart, Tag("pose")]
    | Annotated[OverfeatPart, Tag("overfeat")],
    Discriminator(_family),
]
