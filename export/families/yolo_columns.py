"""Columns of decoded boxes without objectness: YOLOv8, YOLOv9, YOLO11, YOLO12.

Surface (YOLOv9: arXiv 2402.13616; the others are Ultralytics'): one input (B, 3, H, W) RGB 0-1, one
output (B, 4 + C, N), N one column a cell of strides 8, 16, 32 (with 64 for P6, with 4 for P2):

    centre x, centre y, width, height in pixels | C class scores 0-1, each for itself

Some tools turn it to (B, N, 4 + C); that form is read where the file has names for C classes. Feature
maps beside it, as YOLOv9's own exporter leaves them, are ignored. Masks, keypoints and rotated boxes
have the same surface with more columns and are refused.
"""

from __future__ import annotations

import numpy as np
import onnx

from export.families.cells import are_centre_and_size, strides_of
from export.families.score_range import in_unit_range
from export.families.ultralytics import (
    names_for,
    refuse_masks,
    refuse_other_columns,
    refuse_other_tasks,
)
from export.graph import parse
from export.names import names_in
from export.pixels import UNIT
from export.reading import Candidates, Floats, Reading
from export.signature import Signature, Tensor

FAMILY = "yolov8"
NEEDED = (
    "YOLOv8, v9, 11 or 12 columns (one input (1, 3, H, W), multiples of 32; one output float (1, 4 + classes, N), "
    "boxes decoded to pixels, scores 0-1)"
)


def readings(signature: Signature) -> list[Reading]:
    """The one way to read such a model, or none.

    Raises:
        AdaptError: a model of that surface for another task than detection.
    """
    refuse_other_tasks(signature)
    fitting = [output for output in signature.outputs if _fits(signature, output)]
    if not fitting or signature.layout != "nchw":
        return []
    output = fitting[0]
    refuse_masks(signature)
    turned = _is_turned(signature, output)
    columns = _columns(signature.sample[output.name][0].astype(np.float32), turned)
    if not in_unit_range(columns[4:]):
        refuse_other_columns(signature, output.name)
    classes, count = columns.shape[0] - 4, columns.shape[1]
    names, doubt = names_for(signature, classes)
    if len(fitting) > 1:
        doubt = (
            f"outputs {', '.join(each.name for each in fitting)} could each be the one; the first is taken"
        )
    name = output.name
    return [
        Reading(
            family=FAMILY,
            said=f"YOLOv8 or later, decoded columns, output {name} (pixels taken as RGB 0-1)",
            classes=classes,
            pixels=UNIT,
            wires={name: "columns"},
            decoder=lambda opset: _decoder(classes, count, turned, opset),
            decode=lambda outputs: decode(_columns(outputs[name][0].astype(np.float32), turned)),
            nms=True,
            names=names,
            doubt=doubt,
        )
    ]


def decode(columns: Floats) -> Candidates:
    """The reference for the graph's decoder, one picture.

    Args:
        columns: float32 (4 + C, N).
    """
    centre_x, centre_y, width, height = columns[:4].astype(np.float64)
    corners = [centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2]
    return Candidates(np.stack(corners, axis=1).astype(np.float32), columns[4:].T)


def _fits(signature: Signature, output: Tensor) -> bool:
    """Whether an output's shape and its values on noise are of this surface, whatever follows the boxes."""
    height, width = signature.height, signature.width
    if len(output.shape) != 3 or output.shape[0] != 1 or not output.kind.startswith("float"):
        return False
    turned = _is_turned(signature, output)
    rows = output.shape[1] if turned else output.shape[2]
    strides = strides_of(rows, height, width)
    if strides is None or output.shape[2 if turned else 1] < 5:
        return False
    boxes = _columns(signature.sample[output.name][0], turned)[:4].T
    return are_centre_and_size(boxes, height, width, strides)


def _is_turned(signature: Signature, output: Tensor) -> bool:
    names = names_in(signature.metadata)
    return names is not None and output.shape[2] == 4 + len(names)


def _columns(given: Floats, turned: bool) -> Floats:
    return given.T if turned else given


def _decoder(classes: int, count: int, turned: bool, opset: int) -> onnx.ModelProto:
    shape = f"B, {count}, {4 + classes}" if turned else f"B, {4 + classes}, {count}"
    return parse(
        f"""
        yolo_columns (float[{shape}] columns)
            => (float[B, {count}, 4] boxes, float[B, {count}, {classes}] class_scores)
        {{
            rows = {"Identity (columns)" if turned else "Transpose <perm = [0, 2, 1]> (columns)"}
            split = Constant <value_ints = [2, 2, {classes}]> ()
            half = Constant <value_float = 0.5> ()
            centres, sizes, class_scores = Split <axis = 2> (rows, split)
            half_sizes = Mul (sizes, half)
            top_left = Sub (centres, half_sizes)
            bottom_right = Add (centres, half_sizes)
            boxes = Concat <axis = 2> (top_left, bottom_right)
        }}
        """,
        opset,
    )
