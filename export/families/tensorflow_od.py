"""TensorFlow's Object Detection API, converted by tf2onnx: SSD, EfficientDet, CenterNet, Faster R-CNN.

Signature: input uint8 (1, H, W, 3), mostly of any size; outputs detection_boxes (1, K, 4) y1, x1, y2, x2
relative to the input, detection_scores (1, K) and detection_classes (1, K), floats that count from 1, each
name perhaps with ":0" behind. num_detections and further outputs are left out: rows past the last have score
0, so nothing is lost.

Pixels are RGB 0-255: normalising and resizing are part of the graph. Suppression is done. How many classes
there are shows in detection_multiclass_scores or raw_detection_scores, whose first column is the background,
or at the class head where that is COCO's 90; otherwise names must be given.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from export.families.graph_path import class_columns
from export.graph import parse, with_constants
from export.names import names_in
from export.pixels import PixelRule
from export.reading import Finished, Outputs, Reading
from export.signature import Signature, Tensor
from models.coco_names import COCO_CATEGORIES

Doubles = npt.NDArray[np.float64]

NEEDED = (
    "TensorFlow Object Detection API's outputs (one input uint8 (1, H, W, 3); outputs detection_boxes (1, K, 4), "
    "detection_scores (1, K), detection_classes (1, K))"
)
NAMING = (
    "classes count from 1: --names gives them in the order of the label map's ids, with or without a first one "
    "for the background"
)


def readings(signature: Signature) -> list[Reading]:
    """The one way to read a detector of TensorFlow's Object Detection API."""
    found = [_named(signature, f"detection_{what}") for what in ("boxes", "scores", "classes")]
    boxes, scores, classes = found
    if boxes is None or scores is None or classes is None or signature.layout != "nhwc" or signature.others:
        return []
    rows = scores.shape
    if (
        boxes.shape != (*rows, 4)
        or classes.shape != rows
        or len(rows) != 2
        or signature.picture.kind != "uint8"
    ):
        return []
    height, width = signature.height, signature.width
    columns = _columns(signature, scores)
    wires = {boxes.name: "relative_boxes", scores.name: "given_scores", classes.name: "numbers"}
    is_whole = classes.kind in ("int64", "int32")

    def decoded(outputs: Outputs) -> Finished:
        one, other, numbers = (
            outputs[tensor.name][0].astype(np.float64) for tensor in (boxes, scores, classes)
        )
        return decode(one, other, numbers, height, width)

    return [
        Reading(
            family="tensorflow",
            said="TensorFlow Object Detection API (classes count from 1; its graph resizes the picture itself, "
            "so an --input-size of the camera's proportions suits it best)",
            classes=columns,
            pixels=PixelRule(),
            wires=wires,
            decoder=lambda opset: _decoder(rows[1], height, width, "int64" if is_whole else "float", opset),
            decode=decoded,
            nms=False,
            names=names_in(signature.metadata) or (COCO_CATEGORIES if columns == 91 else None),
            background_first=True,
            naming=NAMING,
        )
    ]


def _named(signature: Signature, name: str) -> Tensor | None:
    return signature.output(name) or signature.output(f"{name}:0")


def _columns(signature: Signature, scores: Tensor) -> int:
    """The number of classes with the background, 0 where it does not show."""
    for name in ("detection_multiclass_scores", "raw_detection_scores"):
        tensor = _named(signature, name)
        if tensor is not None and len(tensor.shape) == 3:
            return tensor.shape[2]
    at_head = class_columns(signature, scores.name)
    # CenterNet's head has no column for the background, the others' have: only COCO's number is plain.
    return len(COCO_CATEGORIES) if at_head in (90, 91) else 0


def decode(
    boxes_yxyx: Doubles, scores: Doubles, classes: Doubles, input_height: int, input_width: int
) -> Finished:
    """The reference for the graph's decoder, in NumPy, one picture.

    Args:
        boxes_yxyx: (K, 4) relative to the input.
        scores: (K,) 0-1.
        classes: (K,) from 1.
    """
    top, left, bottom, right = boxes_yxyx.T
    across, down = np.array([left, right]) * input_width, np.array([top, bottom]) * input_height
    boxes = np.stack([across[0], down[0], across[1], down[1]], axis=1)
    return Finished(boxes.astype(np.float32), scores.astype(np.float32), np.rint(classes).astype(np.int64))


def _decoder(count: int, input_height: int, input_width: int, kind: str, opset: int) -> onnx.ModelProto:
    model = parse(
        f"""
        tensorflow_od (float[B, {count}, 4] relative_boxes, float[B, {count}] given_scores,
                       {kind}[B, {count}] numbers, float[4] sides, int64[4] order)
            => (float[B, {count}, 4] boxes, float[B, {count}] scores, int64[B, {count}] classes)
        {{
            ordered = Gather <axis = 2> (relative_boxes, order)
            boxes = Mul (ordered, sides)
            scores = Identity (given_scores)
            floats = Cast <to = 1> (numbers)
            whole = Round (floats)
            classes = Cast <to = 7> (whole)
        }}
        """,
        opset,
    )
    return with_constants(
        model,
        {
            "sides": np.array([input_width, input_height] * 2, np.float32),
            "order": np.array([1, 0, 3, 2], np.int64),
        },
    )
