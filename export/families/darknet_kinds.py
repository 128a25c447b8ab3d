"""Darknet's generations and their successors: their numbers, and what in a graph tells them apart.

Not a family: ``darknet`` asks here. Anchors and ``scale_x_y`` are those of the published .cfg files
(YOLOv3: arXiv 1804.02767; YOLOv4: arXiv 2004.10934) and of YOLOv5's and YOLOv7's .yaml files. Who
trained with others of their own cannot be told from a file.
"""

from __future__ import annotations

from dataclasses import dataclass

from export.families.ultralytics import is_ultralytics
from export.signature import Signature

ANCHORS = 3
COCO_CLASSES = 80

Sizes = tuple[tuple[float, float], ...]

_V3: Sizes = (
    *((10, 13), (16, 30), (33, 23)),
    *((30, 61), (62, 45), (59, 119)),
    *((116, 90), (156, 198), (373, 326)),
)
_V4: Sizes = (
    *((12, 16), (19, 36), (40, 28)),
    *((36, 75), (76, 55), (72, 146)),
    *((142, 110), (192, 243), (459, 401)),
)
_P6: Sizes = (
    *((19, 27), (44, 40), (38, 94)),
    *((96, 68), (86, 152), (180, 137)),
    *((140, 301), (303, 264), (238, 542)),
    *((436, 615), (739, 380), (925, 792)),
)
_TINY: Sizes = ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319))
_TINY_123 = (*_TINY[1:4], *_TINY[3:])


@dataclass(frozen=True, slots=True)
class Kind:
    """A family's numbers: three ``anchors`` (width, height, pixels) and a ``scale`` for each stride, finest first."""

    family: str
    said: str
    anchors: Sizes
    scales: tuple[float, ...]
    is_squared: bool = False  # size = (2 s(twh))^2 anchor


V3 = Kind("yolov3", "YOLOv3 raw grids", _V3, (1, 1, 1))
V4 = Kind("yolov4", "YOLOv4 raw grids (scale_x_y 1.2, 1.1, 1.05)", _V4, (1.2, 1.1, 1.05))
V3_TINY = Kind("yolov3-tiny", "tiny YOLOv3 raw grids (anchors 1,2,3 and 3,4,5)", _TINY_123, (1, 1))
V3_TINY_012 = Kind("yolov3-tiny-012", "tiny YOLOv3 raw grids (anchors 0,1,2 and 3,4,5)", _TINY, (1, 1))
V4_TINY = Kind(
    "yolov4-tiny", "tiny YOLOv4 raw grids (anchors 1,2,3 and 3,4,5, scale_x_y 1.05)", _TINY_123, (1.05, 1.05)
)
V4_TINY_012 = Kind(
    "yolov4-tiny-012", "tiny YOLOv4 raw grids (anchors 0,1,2 and 3,4,5, scale_x_y 1.05)", _TINY, (1.05, 1.05)
)
V5 = Kind("yolov5", "YOLOv5 raw grids", _V3, (2, 2, 2), is_squared=True)
V5_P6 = Kind("yolov5", "YOLOv5 or v7 raw grids with P6", _P6, (2, 2, 2, 2), is_squared=True)
V7 = Kind("yolov7", "YOLOv7 raw grids", _V4, (2, 2, 2), is_squared=True)


def kinds_of(
    signature: Signature, grids: int, classes: int, is_of_torch: bool, is_scored: bool
) -> list[tuple[Kind, str]]:
    """The kinds that fit, each with what speaks against it."""
    if is_of_torch:
        return _torch_kinds(signature, grids, is_scored)
    shape = GraphShape.of(signature)
    if grids == 2:
        return _tiny_kinds(shape, classes)
    if grids != 3:
        return []
    against_v4 = (
        "" if shape.has_mish and shape.goes_down_again else "without Mish, or without a way down after up"
    )
    against_v3 = ""
    if shape.has_mish or shape.goes_down_again:
        against_v3 = "with Mish, or with a way down after up, as no YOLOv3"
    elif shape.has_pooling_down:
        against_v3 = "halves by pooling, as a tiny model of three grids, whose anchors the file does not say"
    return [(V3, against_v3), (V4, against_v4)]


def _torch_kinds(signature: Signature, grids: int, is_scored: bool) -> list[tuple[Kind, str]]:
    against = "scores past their sigmoid beside raw boxes, as no exporter of this family" if is_scored else ""
    if grids == 2:
        return []
    if grids == 4:
        return [(V5_P6, against)]
    # YOLOv5's exporter writes metadata, YOLOv7's none; tiny YOLOv7 has YOLOv5's anchors.
    kinds = [V5] if is_ultralytics(signature) else [V5, V7, V3]
    return [(kind, against) for kind in kinds]


def _tiny_kinds(shape: GraphShape, classes: int) -> list[tuple[Kind, str]]:
    is_v3 = shape.has_pooling_down and not shape.has_stride
    is_v4 = shape.has_pooling_down and shape.has_stride
    against_v3 = "" if is_v3 or not is_v4 else "has convolutions of stride 2, as no tiny YOLOv3"
    against_v4 = "" if is_v4 or not is_v3 else "halves by pooling alone, as no tiny YOLOv4"
    unusual = "YOLOv3's published weights have the anchors 1,2,3" if classes == COCO_CLASSES else ""
    return [
        (V3_TINY, against_v3),
        (V3_TINY_012, against_v3 or unusual),
        (V4_TINY, against_v4),
        (V4_TINY_012, against_v4 or "YOLOv4's .cfg has the anchors 1,2,3"),
    ]


@dataclass(frozen=True, slots=True)
class GraphShape:
    """What tells the generations apart."""

    has_mish: bool
    has_stride: bool  # a convolution that halves
    has_pooling_down: bool  # a pooling that halves
    goes_down_again: bool  # a convolution that halves, fed by what was doubled before

    @classmethod
    def of(cls, signature: Signature) -> GraphShape:
        raised: set[str] = set()
        has_stride = has_pooling = again = False
        for node in signature.model.graph.node:
            halves = any(a.name == "strides" and list(a.ints) == [2, 2] for a in node.attribute)
            is_fed = any(name in raised for name in node.input)
            has_stride |= node.op_type == "Conv" and halves
            has_pooling |= node.op_type == "MaxPool" and halves
            again |= node.op_type == "Conv" and halves and is_fed
            if is_fed or node.op_type in ("Resize", "Upsample", "ConvTranspose"):
                raised.update(node.output)
        has_mish = "Mish" in signature.operators or {"Softplus", "Tanh"} <= signature.operators
        return cls(has_mish, has_stride, has_pooling, again)
