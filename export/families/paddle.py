"""PaddleDetection's models as paddle2onnx leaves them: PP-YOLOE, PicoDet, RT-DETR, Faster R-CNN and others.

Surface (PaddleDetection, deploy/EXPORT_MODEL_en.md): inputs ``image`` (B, 3, H, W), ``scale_factor``
(B, 2) and mostly ``im_shape`` (B, 2), y first in both; outputs, in any order, the rows of all pictures

    class | score 0-1 | x1, y1, x2, y2 in pixels of the picture before it was scaled     (n, 6)

and how many belong to each (B). Suppression is done. Class -1 fills a place where nothing was found.
With a scale of 1 the boxes come in pixels of the input.

Pixels are stretched to the input, RGB: 0-1 for PP-YOLOE+ and RT-DETR, by ImageNet's mean and standard
deviation for PP-YOLOE and PicoDet (each project's TestReader). The file does not say which.
"""

from __future__ import annotations

import numpy as np
import onnx

from export.families.graph_path import class_columns, values_inside
from export.graph import parse
from export.names import names_in
from export.pixels import UNIT
from export.reading import Finished, Floats, Reading
from export.signature import Signature, Tensor

NEEDED = (
    "PaddleDetection's rows past NMS (inputs image and scale_factor (1, 2); outputs float (n, 6): class, score, "
    "x1, y1, x2, y2, and their number (1))"
)


def readings(signature: Signature) -> list[Reading]:
    """The one way to read a PaddleDetection export with its postprocessing."""
    rows = _rows(signature)
    if rows is None or signature.layout != "nchw" or not _inputs_fit(signature):
        return []
    names = names_in(signature.metadata)
    return [
        Reading(
            family="paddle",
            said="PaddleDetection's rows past NMS, thresholds as in the file (pixels as of PP-YOLOE+ and "
            "RT-DETR; PP-YOLOE and PicoDet want --mean 123.675,116.28,103.53 --std 58.395,57.12,57.375)",
            classes=_classes(signature, rows) or len(names or ()),
            pixels=UNIT.changed(resize="stretch"),
            wires={rows.name: "rows"},
            decoder=_decoder,
            decode=lambda outputs: decode(outputs[rows.name].astype(np.float32)),
            nms=False,
            names=names,
        )
    ]


def decode(rows: Floats) -> Finished:
    """The reference for the graph's decoder, one picture.

    Args:
        rows: float32 (n, 6).
    """
    found = rows[rows[:, 0] >= 0]
    return Finished(found[:, 2:], found[:, 1], found[:, 0].astype(np.int64))


def _inputs_fit(signature: Signature) -> bool:
    names = {tensor.name.rsplit("/", 1)[-1] for tensor in signature.others}
    return "scale_factor" in names and names <= {"scale_factor", "im_shape"}


def _rows(signature: Signature) -> Tensor | None:
    """The rows, if the outputs are these and their number."""
    if len(signature.outputs) != 2:
        return None
    rows = [x for x in signature.outputs if x.kind == "float32" and len(x.shape) == 2 and x.shape[1] == 6]
    counts = [x for x in signature.outputs if x.kind in ("int32", "int64") and x.shape in ((1,), ())]
    return rows[0] if len(rows) == len(counts) == 1 else None


def _classes(signature: Signature, rows: Tensor) -> int:
    """C as suppression is given it, else as the scores had it before the best were picked; 0 where neither shows."""
    suppressed = {node.input[1] for node in signature.model.graph.node if node.op_type == "NonMaxSuppression"}
    counts = {value.shape[1] for value in values_inside(signature, suppressed).values()}
    return counts.pop() if len(counts) == 1 else class_columns(signature, rows.name)


def _decoder(opset: int) -> onnx.ModelProto:
    return parse(
        """
        paddle (float[n, 6] rows) => (float[B, n, 4] boxes, float[B, n] scores, int64[B, n] classes)
        {
            split = Constant <value_ints = [1, 1, 4]> ()
            first_axis = Constant <value_ints = [0]> ()
            last_axis = Constant <value_ints = [2]> ()
            none = Constant <value_float = 0.0> ()
            of_one = Unsqueeze (rows, first_axis)
            class_column, score_column, boxes = Split <axis = 2> (of_one, split)
            class_numbers = Squeeze (class_column, last_axis)
            all_scores = Squeeze (score_column, last_axis)
            is_filler = Less (class_numbers, none)
            scores = Where (is_filler, none, all_scores)
            known = Max (class_numbers, none)
            classes = Cast <to = 7> (known)
        }
        """,
        opset,
    )
