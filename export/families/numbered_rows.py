"""Detections of a whole batch as one list, each row with its picture's number: YOLOv7 and YOLOv6 with NMS.

Surface: one input (B, 3, H, W) RGB 0-1, one output (n, 7), n as many as were found

    picture | x1, y1, x2, y2 in pixels | class | score 0-1

with NMS at fixed thresholds in the graph (YOLOv7, arXiv 2207.02696: ``--end2end --max-wh``; YOLOv6 the
same). Others put the columns in another order, and on noise nothing may be found to tell them by, so
the graph is asked: its last Concat joins columns that were whole numbers and ones that were not.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from export.families.graph_path import values_inside
from export.graph import parse
from export.names import names_in
from export.pixels import UNIT
from export.reading import Finished, Floats, Reading
from export.signature import Signature

FAMILY = "yolov7"
NEEDED = "YOLOv7 or v6 rows past NMS (one output float (n, 7): picture, x1, y1, x2, y2, class, score)"

_PASSED_OVER = ("Identity", "Cast")


def readings(signature: Signature) -> list[Reading]:
    """The one way to read such a model; doubtful where its graph does not show the columns' order."""
    if len(signature.outputs) != 1 or signature.layout != "nchw":
        return []
    (output,) = signature.outputs
    declared = signature.declared[0].shape
    if len(output.shape) != 2 or output.shape[1] != 7 or (declared and declared[0] > 0):
        return []
    if not output.kind.startswith("float") or "NonMaxSuppression" not in signature.operators:
        return []
    parts = _parts(signature)
    if parts and [width for width, _ in parts] != [1, 4, 1, 1]:
        return []
    is_shown = [is_whole for _, is_whole in parts] == [True, False, True, False]
    names = names_in(signature.metadata)
    name = output.name
    return [
        Reading(
            family=FAMILY,
            said="YOLOv7 or v6 rows past NMS, thresholds as in the file (pixels taken as RGB 0-1)",
            classes=_classes(signature) or len(names or ()),
            pixels=UNIT,
            wires={name: "rows"},
            decoder=_decoder,
            decode=lambda outputs: decode(outputs[name].astype(np.float32)),
            nms=False,
            names=names,
            doubt=""
            if is_shown
            else "the graph does not show whether class or score is last; taken as the score",
        )
    ]


def decode(rows: Floats) -> Finished:
    """The reference for the graph's decoder, one picture.

    Args:
        rows: float32 (n, 7).
    """
    return Finished(rows[:, 1:5], rows[:, 6], rows[:, 5].astype(np.int64))


def _parts(signature: Signature) -> list[tuple[int, bool]]:
    """What the last Concat joins: columns, and whether they were whole numbers; none without a Concat."""
    makers = {output: node for node in signature.model.graph.node for output in node.output}
    last = makers.get(signature.outputs[0].name)
    while last is not None and last.op_type in _PASSED_OVER:
        last = makers.get(last.input[0])
    if last is None or last.op_type != "Concat":
        return []
    origins = [makers[name].input[0] if _is_cast(makers, name) else name for name in last.input]
    if not makers.keys() >= {*last.input, *origins}:
        return []
    values = values_inside(signature, [*last.input, *origins])
    return [
        (values[name].shape[-1], bool(np.issubdtype(values[origin].dtype, np.integer)))
        for name, origin in zip(last.input, origins, strict=True)
    ]


def _classes(signature: Signature) -> int:
    """C, of which the graph takes the likeliest; 0 where that does not show."""
    sources = [node.input[0] for node in signature.model.graph.node if node.op_type == "ArgMax"]
    values = values_inside(signature, sources)
    shapes = {values[name].shape for name in sources}
    shape = shapes.pop() if len(shapes) == 1 else ()
    return shape[2] if len(shape) == 3 else 0


def _is_cast(makers: Mapping[str, onnx.NodeProto], name: str) -> bool:
    return name in makers and makers[name].op_type == "Cast"


def _decoder(opset: int) -> onnx.ModelProto:
    return parse(
        """
        numbered_rows (float[n, 7] rows) => (float[B, n, 4] boxes, float[B, n] scores, int64[B, n] classes)
        {
            split = Constant <value_ints = [1, 4, 1, 1]> ()
            first_axis = Constant <value_ints = [0]> ()
            last_axis = Constant <value_ints = [2]> ()
            of_one = Unsqueeze (rows, first_axis)
            picture_number, boxes, class_column, score_column = Split <axis = 2> (of_one, split)
            scores = Squeeze (score_column, last_axis)
            class_numbers = Squeeze (class_column, last_axis)
            classes = Cast <to = 7> (class_numbers)
        }
        """,
        opset,
    )
