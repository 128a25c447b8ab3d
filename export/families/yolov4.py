"""YOLOv4 (arXiv 2004.10934) and v3 decoded in their graph, as Tianxiaomo's pytorch-YOLOv4 exports them.

Surface: one input (B, 3, H, W); outputs, in any order, boxes float (B, N, 1, 4), x1, y1, x2, y2 relative to
the input, and confs float (B, N, C), objectness times class. Pixels are RGB 0-1, stretched. Suppression
is still to be done.
"""

from __future__ import annotations

import numpy as np
import onnx

from export.anchors import are_corners
from export.families.score_range import in_unit_range
from export.graph import parse, with_constants
from export.names import names_in
from export.pixels import UNIT, Array
from export.reading import Candidates, Reading
from export.signature import Signature, Tensor

NEEDED = (
    "pytorch-YOLOv4's boxes (1, N, 1, 4), x1, y1, x2, y2 relative to the input, and confs (1, N, classes)"
)


def readings(signature: Signature) -> list[Reading]:
    """The one way to read a decoded YOLOv4."""
    found = _paired(signature)
    if found is None or signature.layout != "nchw" or signature.others:
        return []
    boxes, scores = found
    _, count, columns = scores.shape
    height, width = signature.height, signature.width
    names = names_in(signature.metadata)
    return [
        Reading(
            family="yolov4-decoded",
            said="pytorch-YOLOv4's decoded boxes and confs (pixels taken as RGB 0-1)",
            classes=columns,
            pixels=UNIT.changed(resize="stretch"),
            wires={boxes.name: "relative_boxes", scores.name: "confs"},
            decoder=lambda opset: _decoder(count, columns, height, width, opset),
            decode=lambda outputs: decode(
                outputs[boxes.name][0, :, 0], outputs[scores.name][0], height, width
            ),
            nms=True,
            names=names if names is None or len(names) == columns else None,
        )
    ]


def decode(boxes: Array, scores: Array, input_height: int, input_width: int) -> Candidates:
    """The reference for the graph's decoder, one picture.

    Args:
        boxes: (N, 4) relative to the input.
        scores: (N, C).
    """
    scaled = boxes.astype(np.float64) * [input_width, input_height, input_width, input_height]
    return Candidates(scaled.astype(np.float32), scores.astype(np.float32))


def _paired(signature: Signature) -> tuple[Tensor, Tensor] | None:
    """Boxes and scores, if the two outputs are these."""
    boxes = [x for x in signature.outputs if len(x.shape) == 4 and x.shape[2:] == (1, 4)]
    scores = [x for x in signature.outputs if len(x.shape) == 3]
    if len(signature.outputs) != 2 or len(boxes) != 1 or len(scores) != 1:
        return None
    if boxes[0].shape[:2] != scores[0].shape[:2] or not in_unit_range(signature.sample[scores[0].name]):
        return None
    return (boxes[0], scores[0]) if are_corners(signature.sample[boxes[0].name][0, :, 0]) else None


def _decoder(count: int, columns: int, input_height: int, input_width: int, opset: int) -> onnx.ModelProto:
    model = parse(
        f"""
        yolov4 (float[B, {count}, 1, 4] relative_boxes, float[B, {count}, {columns}] confs, float[4] sides)
            => (float[B, {count}, 4] boxes, float[B, {count}, {columns}] class_scores)
        {{
            one = Constant <value_ints = [2]> ()
            corners = Squeeze (relative_boxes, one)
            boxes = Mul (corners, sides)
            class_scores = Identity (confs)
        }}
        """,
        opset,
    )
    return with_constants(model, {"sides": np.array([input_width, input_height] * 2, np.float32)})
