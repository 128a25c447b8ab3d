"""Rows of decoded boxes with objectness: YOLOX, YOLOv6, YOLOv5, YOLOv7 and their kin.

Surface: one input (B, 3, H, W), one output (B, N, 5 + C), a row

    centre x, centre y, width, height in pixels | objectness 0-1 | C class scores 0-1, given an object

One row a cell of strides 8, 16, 32 is YOLOX (arXiv 2107.08430) exported with its decoding, BGR 0-255,
or YOLOv6 (arXiv 2209.02976), RGB 0-1. YOLOv6 since 0.2 has no objectness and writes 1 there. YOLOX
decodes all levels at once, with one exponential over all rows; YOLOv6 0.1 level by level, and so do
copies of YOLOX: those are ambiguous. YOLOX's raw grid is read by ``yolox_grid`` and never here.

Three rows a cell (its anchors) is YOLOv5, YOLOv7 (arXiv 2207.02696), and YOLOv3, YOLOv4 and YOLOR as
rewritten in PyTorch, all RGB 0-1. Feature maps beside it (their older exporters) are ignored; masks
and keypoints are refused. With a single class, YOLOv7 scores a box by its objectness alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from export.families.cells import are_centre_and_size, strides_of
from export.families.score_range import in_unit_range
from export.families.ultralytics import is_ultralytics, names_for, refuse_masks, refuse_other_columns
from export.graph import parse
from export.pixels import UNIT, PixelRule
from export.reading import Candidates, Floats, Reading
from export.signature import Signature, Tensor

ANCHORS = 3
NEEDED = (
    "YOLOv5 or v7 rows (one output float (1, N, 5 + classes), N three rows a cell), or YOLOX or YOLOv6 rows (N one "
    "row a cell), boxes decoded to pixels, objectness and classes after their sigmoid"
)


@dataclass(frozen=True, slots=True)
class _Kin:
    family: str
    said: str
    pixels: PixelRule = UNIT
    is_objectness_alone: bool = False


_YOLOX = _Kin("yolox", "YOLOX decoded rows (pixels taken as BGR 0-255)", PixelRule(color="bgr"))
_YOLOV6 = _Kin("yolov6", "YOLOv6 rows (pixels taken as RGB 0-1)")
_YOLOV5 = _Kin("yolov5", "YOLOv5 or v7 decoded rows (pixels taken as RGB 0-1)")
_YOLOV7 = _Kin(
    "yolov7", "YOLOv7 decoded rows of one class, scored by objectness alone", is_objectness_alone=True
)


def readings(signature: Signature) -> list[Reading]:
    """The ways to read such a model: two where YOLOX and YOLOv6, or v5 and v7, show alike.

    Raises:
        AdaptError: a model of that surface for another task than detection.
    """
    fitting = [output for output in signature.outputs if _anchors(signature, output)]
    if len(fitting) != 1 or signature.layout != "nchw":
        return []
    output = fitting[0]
    refuse_masks(signature)
    rows = signature.sample[output.name][0]
    if not in_unit_range(rows[:, 4:]):
        refuse_other_columns(signature, output.name)
    classes = rows.shape[1] - 5
    anchors = _anchors(signature, output)
    kins = _one_a_cell(signature, rows) if anchors == 1 else _three_a_cell(signature, classes)
    return [_reading(signature, output, kin) for kin in kins]


def decode(rows: Floats, is_objectness_alone: bool = False) -> Candidates:
    """The reference for the graph's decoder, one picture.

    Args:
        rows: float32 (N, 5 + C).
        is_objectness_alone: whether the class columns do not count (C is 1).
    """
    centre_x, centre_y, width, height = rows[:, :4].astype(np.float64).T
    corners = [centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2]
    boxes = np.stack(corners, axis=1).astype(np.float32)
    return Candidates(boxes, rows[:, 4:5] if is_objectness_alone else rows[:, 4:5] * rows[:, 5:])


def _anchors(signature: Signature, output: Tensor) -> int:
    """Rows a cell of an output that has this surface, whatever follows its boxes; 0 for others."""
    height, width = signature.height, signature.width
    if len(output.shape) != 3 or output.shape[0] != 1 or not output.kind.startswith("float"):
        return 0
    for anchors in (1, ANCHORS):
        strides = strides_of(output.shape[1], height, width, anchors)
        if strides is not None and output.shape[2] >= 6:
            boxes = signature.sample[output.name][0][:, :4]
            return anchors if are_centre_and_size(boxes, height, width, strides, anchors) else 0
    return 0


def _one_a_cell(signature: Signature, rows: Floats) -> list[_Kin]:
    if (rows[:, 4] == 1).all():
        return [_YOLOV6]
    exponentials = sum(node.op_type == "Exp" for node in signature.model.graph.node)
    if exponentials == 0:
        return []  # neither family decodes sizes otherwise: rows without objectness, perhaps
    return [_YOLOX] if exponentials == 1 else [_YOLOX, _YOLOV6]


def _three_a_cell(signature: Signature, classes: int) -> list[_Kin]:
    is_v5 = is_ultralytics(signature)  # YOLOv7's exporter writes no metadata
    return [_YOLOV5] if classes > 1 or is_v5 else [_YOLOV5, _YOLOV7]


def _reading(signature: Signature, output: Tensor, kin: _Kin) -> Reading:
    name, (_, count, columns) = output.name, output.shape
    names, doubt = names_for(signature, columns - 5)
    return Reading(
        family=kin.family,
        said=kin.said,
        classes=columns - 5,
        pixels=kin.pixels,
        wires={name: "rows"},
        decoder=lambda opset: _decoder(count, columns - 5, kin.is_objectness_alone, opset),
        decode=lambda outputs: decode(outputs[name][0].astype(np.float32), kin.is_objectness_alone),
        nms=True,
        names=names,
        doubt=doubt,
    )


def _decoder(count: int, classes: int, is_objectness_alone: bool, opset: int) -> onnx.ModelProto:
    scores = "Identity (objectness)" if is_objectness_alone else "Mul (objectness, class_given_object)"
    return parse(
        f"""
        yolo_rows (float[B, {count}, {5 + classes}] rows)
            => (float[B, {count}, 4] boxes, float[B, {count}, {classes}] class_scores)
        {{
            split = Constant <value_ints = [2, 2, 1, {classes}]> ()
            half = Constant <value_float = 0.5> ()
            centres, sizes, objectness, class_given_object = Split <axis = 2> (rows, split)
            half_sizes = Mul (sizes, half)
            top_left = Sub (centres, half_sizes)
            bottom_right = Add (centres, half_sizes)
            boxes = Concat <axis = 2> (top_left, bottom_right)
            class_scores = {scores}
        }}
        """,
        opset,
    )
