"""What a recipe says of its network: one part a family, whose keys are its configuration's.

Knows nothing of torch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Side = Annotated[int, Field(ge=64, le=2048, multiple_of=32)]


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


class HogPart(NetworkPart):
    """See :class:`models.lineage.hog_detector.HogConfig`."""

    family: Literal["hog-svm"]
    pretrained: Literal[False] = False
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
    window_height: Annotated[int, Field(ge=32, le=512, multiple_of=8)] = 64
    window_width: Annotated[int, Field(ge=32, le=512, multiple_of=8)] = 32
    margin: Annotated[int, Field(ge=0, le=64)] = 8
    components: Annotated[int, Field(ge=1, le=8)] = 2
    parts: Annotated[int, Field(ge=1, le=32)] = 6
    part_side: Annotated[int, Field(ge=1, le=16)] = 4
    reach: Annotated[int, Field(ge=0, le=16)] = 4
    largest_scale: Annotated[float, Field(ge=0.5, le=4)] = 2.0
    scales_per_octave: Annotated[int, Field(ge=1, le=16)] = 4
    cost: Positive = 0.01
    pictures: Annotated[int, Field(ge=1)] = 200
    negatives: Annotated[int, Field(ge=1, le=1000)] = 10
    rounds: Annotated[int, Field(ge=1, le=10)] = 2


def _family(value: Any) -> str:
    """Which part a recipe's ``model`` is: a family that is not named is lookout's own."""
    family = value.get("family", _DEFAULT) if isinstance(value, dict) else getattr(value, "family", _DEFAULT)
    return str(family)


_DEFAULT = "lookout-yolox"

ModelPart = Annotated[
    Annotated[YoloxPart, Tag("lookout-yolox")]
    | Annotated[HogPart, Tag("hog-svm")]
    | Annotated[DpmPart, Tag("dpm")],
    Discriminator(_family),
]
