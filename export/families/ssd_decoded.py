"""SSDs that decode their own boxes: UltraFace (Linzaer) and pytorch-ssd (qfgaohao, jetson-inference).

Signature: class scores float32 (1, N, 1 + C), past their softmax, the background first, and boxes
float32 (1, N, 4), x1, y1, x2, y2 relative to the input, in any order. That the scores sum to 1 and that
boxes end after they begin is measured. Pixels are RGB (x - 127) / 128, stretched, for both.

UltraFace is pytorch-ssd with one class and anchors of its own; their number for the input's size (grids
of strides 8, 16, 32 and 64 with 3, 2, 2 and 3 anchors a cell: 4420 for 320x240) tells it from a
pytorch-ssd of one class. Other detectors with such outputs are read as pytorch-ssd.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from export.anchors import MOST_RELATIVE, are_corners
from export.families.score_range import activation
from export.families.ssd_raw import PYTORCH
from export.graph import parse, with_constants
from export.pixels import Array
from export.reading import Candidates, Reading
from export.signature import Signature, Tensor

NEEDED = (
    "UltraFace's or pytorch-ssd's scores (1, N, 1 + classes), the background first and past their softmax, "
    "and boxes (1, N, 4), x1, y1, x2, y2 relative to the input"
)

ULTRAFACE_GRIDS = ((8, 3), (16, 2), (32, 2), (64, 3))
"""Stride, and anchors a cell."""

Floats = npt.NDArray[np.float32]


def readings(signature: Signature) -> list[Reading]:
    """The one way to read an UltraFace or a pytorch-ssd."""
    if len(signature.outputs) != 2:
        return []
    found = _paired(signature)
    if found is None:
        return []
    boxes, scores = found
    count, columns = scores.shape[1:]
    is_face = columns == 2 and count == ultraface_anchors(signature.height, signature.width)
    project = "UltraFace" if is_face else "pytorch-ssd"
    height, width = signature.height, signature.width
    return [
        Reading(
            family="ultraface" if is_face else "pytorch-ssd",
            said=f"{project}'s scores, class 0 taken as background, and decoded boxes",
            classes=columns - 1,
            pixels=PYTORCH,
            wires={boxes.name: "relative_boxes", scores.name: "scores"},
            decoder=lambda opset: _decoder(count, columns, height, width, opset),
            decode=lambda outputs: decode(outputs[boxes.name][0], outputs[scores.name][0], height, width),
            nms=True,
            names=("face",) if is_face else None,
        )
    ]


def ultraface_anchors(input_height: int, input_width: int) -> int:
    """How many anchors an UltraFace has for an input of that size."""
    return sum(-(-input_height // s) * -(-input_width // s) * each for s, each in ULTRAFACE_GRIDS)


def _paired(signature: Signature) -> tuple[Tensor, Tensor] | None:
    """Boxes and scores, if the two outputs are these."""
    one, other = signature.outputs
    for boxes, scores in ((one, other), (other, one)):
        if len(boxes.shape) != 3 or len(scores.shape) != 3 or boxes.shape[:2] != scores.shape[:2]:
            continue
        if boxes.shape[2] != 4 or scores.shape[2] < 2 or "detection_boxes" in boxes.name:
            continue  # TensorFlow's raw_detection_boxes have y first
        values = signature.sample[boxes.name][0]
        if activation(signature.sample[scores.name]) == "softmax" and _are_relative_corners(values):
            return boxes, scores
    return None


def _are_relative_corners(boxes: Array) -> bool:
    """A few boxes may reach far out of the picture, most of them lie about it."""
    numbers = boxes.astype(np.float64)
    centres = (numbers[:, :2] + numbers[:, 2:]) / 2
    return are_corners(boxes) and bool(np.quantile(np.abs(centres), 0.9) <= MOST_RELATIVE / 2)


def decode(boxes: Array, scores: Array, input_height: int, input_width: int) -> Candidates:
    """The reference for the graph's decoder, in NumPy, one picture.

    Args:
        boxes: (N, 4) relative to the input.
        scores: (N, 1 + C), the background first.
    """
    scaled = boxes.astype(np.float64)
    scaled[:, [0, 2]] *= input_width
    scaled[:, [1, 3]] *= input_height
    return Candidates(scaled.astype(np.float32), scores[:, 1:].astype(np.float32))


def _decoder(count: int, columns: int, input_height: int, input_width: int, opset: int) -> onnx.ModelProto:
    model = parse(
        f"""
        decoded_ssd (float[B, {count}, 4] relative_boxes, float[B, {count}, {columns}] scores, float[4] sides)
            => (float[B, {count}, 4] boxes, float[B, {count}, {columns - 1}] class_scores)
        {{
            boxes = Mul (relative_boxes, sides)
            split = Constant <value_ints = [1, {columns - 1}]> ()
            background, class_scores = Split <axis = 2> (scores, split)
        }}
        """,
        opset,
    )
    sides = np.array([input_width, input_height] * 2, np.float32)
    return with_constants(model, {"sides": sides})
