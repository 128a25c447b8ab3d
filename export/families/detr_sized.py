"""RT-DETR (arXiv 2304.08069), D-FINE (2410.13842) and DEIM (2412.04234) as their own exporters deploy them.

Signature: inputs float (1, 3, H, W) and the picture's original size (1, 2); outputs labels int64 (1, Q),
boxes (1, Q, 4) x1, y1, x2, y2 in pixels of that size and scores (1, Q), in any order. That the size is
multiplied into the boxes, and which of its numbers is the width, is measured: descendants differ.

Finished detections of one class each. Pixels are RGB 0-1, stretched to the input.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from export.families.graph_path import class_columns
from export.graph import parse
from export.pixels import UNIT
from export.reading import Finished, Outputs, Reading
from export.signature import Signature, Tensor

NEEDED = (
    "RT-DETR's or D-FINE's deployed outputs (inputs (1, 3, H, W) and the picture's size (1, 2); outputs labels "
    "int64 (1, Q), boxes (1, Q, 4) in pixels of that size, scores (1, Q))"
)

Doubles = npt.NDArray[np.float64]

_TOLERANCE = 1e-3
_SIDE = 1000
_LEAST_SCALED = 0.9
"""How many of the numbers must scale as expected; some projects clip boxes to the picture."""


def readings(signature: Signature) -> list[Reading]:
    """The one way to read an RT-DETR, D-FINE or DEIM with its postprocessing."""
    sizes = [tensor for tensor in signature.others if len(tensor.shape) == 2]
    found = _finished(signature)
    if signature.layout != "nchw" or len(sizes) != 1 or len(signature.others) != 1 or found is None:
        return []
    labels, boxes, scores = found
    width_first = _width_first(signature, sizes[0], boxes)
    if width_first is None:
        return []
    height, width = signature.height, signature.width
    pair = (width, height) if width_first else (height, width)

    def decode(outputs: Outputs) -> Finished:
        one, other, classes = (outputs[tensor.name][0] for tensor in (boxes, scores, labels))
        return Finished(one.astype(np.float32), other.astype(np.float32), classes.astype(np.int64))

    return [
        Reading(
            family="rt-detr-deploy",
            said="RT-DETR, D-FINE or DEIM with its postprocessing (of the picture's size the "
            f"{'width' if width_first else 'height'} comes first, as measured; DEIMv2's S to X want "
            "--mean 123.675,116.28,103.53 --std 58.395,57.12,57.375 besides)",
            classes=class_columns(signature, scores.name),
            pixels=UNIT.changed(resize="stretch"),
            wires={boxes.name: "given_boxes", scores.name: "given_scores", labels.name: "labels"},
            decoder=lambda opset: _decoder(boxes.shape[1], opset),
            decode=decode,
            nms=False,
            constants={sizes[0].name: np.array([pair], sizes[0].kind)},
        )
    ]


def _finished(signature: Signature) -> tuple[Tensor, Tensor, Tensor] | None:
    """Labels, boxes and scores, told apart by type and shape."""
    flat = [tensor for tensor in signature.outputs if len(tensor.shape) == 2]
    labels = [tensor for tensor in flat if tensor.kind in ("int64", "int32")]
    scores = [tensor for tensor in flat if tensor.kind == "float32"]
    boxes = [tensor for tensor in signature.outputs if tensor.shape[2:] == (4,)]
    if not len(labels) == len(boxes) == len(scores) == 1:
        return None
    rows = labels[0].shape
    fits = rows[0] == 1 and rows == scores[0].shape == boxes[0].shape[:2] and boxes[0].kind == "float32"
    return (labels[0], boxes[0], scores[0]) if fits else None


def _width_first(signature: Signature, size: Tensor, boxes: Tensor) -> bool | None:
    """Whether the first number of the size scales x; None where it scales neither x nor y alone."""

    def run(first: int, second: int) -> Doubles:
        given = {size.name: np.array([(first, second)], size.kind)}
        values: Doubles = signature.run(signature.noise(), given)[boxes.name][0].astype(np.float64)
        return values

    plain, first, second = run(_SIDE, _SIDE), run(2 * _SIDE, _SIDE), run(_SIDE, 2 * _SIDE)
    doubled_x, doubled_y = plain * [2, 1, 2, 1], plain * [1, 2, 1, 2]
    if not (plain[:, 2:] >= plain[:, :2]).all():
        return None
    is_width = _same(first, doubled_x) and _same(second, doubled_y)
    is_height = _same(first, doubled_y) and _same(second, doubled_x)
    return None if is_width == is_height else is_width


def _same(one: Doubles, other: Doubles) -> bool:
    close = np.isclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE * _SIDE)
    return bool(close.mean() >= _LEAST_SCALED)


def _decoder(count: int, opset: int) -> onnx.ModelProto:
    return parse(
        f"""
        deployed (float[B, {count}, 4] given_boxes, float[B, {count}] given_scores, int64[B, {count}] labels)
            => (float[B, {count}, 4] boxes, float[B, {count}] scores, int64[B, {count}] classes)
        {{
            boxes = Identity (given_boxes)
            scores = Identity (given_scores)
            classes = Identity (labels)
        }}
        """,
        opset,
    )
