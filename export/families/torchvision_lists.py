"""torchvision's detectors (Faster R-CNN 1506.01497, RetinaNet 1708.02002, SSD 1512.02325, FCOS 1904.01355).

Signature: input float (3, H, W), or (1, 3, H, W), of any size; outputs boxes (n, 4) x1, y1, x2, y2 in pixels
of that input, labels int64 (n) and scores (n), in any order, as many as were found. Further outputs (masks,
keypoints) are left out.

Pixels are RGB 0-1: normalising and resizing are part of the graph. Label 0 is no object, so that classes are
numbered from 1 and ``--names`` may leave out the background; how many there are is measured at the class
head. Suppression is done.
"""

from __future__ import annotations

import numpy as np
import onnx

from export.families.graph_path import class_columns
from export.graph import parse
from export.names import names_in
from export.pixels import UNIT
from export.reading import Finished, Outputs, Reading
from export.signature import Signature, Tensor
from models.coco_names import COCO_CATEGORIES

NEEDED = (
    "torchvision's detectors (one input (3, H, W) or (1, 3, H, W); outputs boxes (n, 4), labels int64 (n), "
    "scores (n), as many as were found)"
)
NAMING = (
    "labels count from 1, 0 is no object: --names gives the classes in the order of their labels, with or "
    "without a first one for the background"
)


def readings(signature: Signature) -> list[Reading]:
    """The one way to read a torchvision detector."""
    found = _lists(signature)
    if found is None or signature.layout == "nhwc" or signature.others:
        return []
    labels, boxes, scores = found
    columns = class_columns(signature, scores.name)

    def decode(outputs: Outputs) -> Finished:
        return Finished(
            outputs[boxes.name].astype(np.float32),
            outputs[scores.name].astype(np.float32),
            outputs[labels.name].astype(np.int64),
        )

    return [
        Reading(
            family="torchvision",
            said="torchvision's lists of detections (labels taken to count from 1, 0 as background)",
            classes=columns,
            pixels=UNIT,
            wires={boxes.name: "found_boxes", scores.name: "found_scores", labels.name: "labels"},
            decoder=_decoder,
            decode=decode,
            nms=False,
            names=names_in(signature.metadata) or (COCO_CATEGORIES if columns == 91 else None),
            background_first=True,
            naming=NAMING,
        )
    ]


def _lists(signature: Signature) -> tuple[Tensor, Tensor, Tensor] | None:
    """Labels, boxes and scores, told apart by type and shape; their length must be open."""
    flat = [tensor for tensor in signature.outputs if len(tensor.shape) == 1]
    labels = [tensor for tensor in flat if tensor.kind == "int64"]
    scores = [tensor for tensor in flat if tensor.kind == "float32"]
    boxes = [tensor for tensor in signature.outputs if len(tensor.shape) == 2 and tensor.shape[1] == 4]
    if not len(labels) == len(boxes) == len(scores) == 1 or boxes[0].kind != "float32":
        return None
    declared = next(tensor for tensor in signature.declared if tensor.name == scores[0].name)
    fits = labels[0].shape == scores[0].shape == boxes[0].shape[:1] and declared.shape in ((-1,), ())
    return (labels[0], boxes[0], scores[0]) if fits else None


def _decoder(opset: int) -> onnx.ModelProto:
    return parse(
        """
        lists (float[N, 4] found_boxes, float[N] found_scores, int64[N] labels)
            => (float[B, N, 4] boxes, float[B, N] scores, int64[B, N] classes)
        {
            front = Constant <value_ints = [0]> ()
            boxes = Unsqueeze (found_boxes, front)
            scores = Unsqueeze (found_scores, front)
            classes = Unsqueeze (labels, front)
        }
        """,
        opset,
    )
