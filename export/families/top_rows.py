"""Finished detections as rows, past suppression or without need of it: YOLOv10, YOLO26, CenterNet, others.

Surface: one input, one output (B, K, 6), or (K, 6) for one picture, of few rows

    x1, y1, x2, y2 | score 0-1 | class, a whole number       (some put the class before the score)

Ultralytics' end-to-end models (YOLOv10: arXiv 2405.14458; YOLO26; any of them exported with NMS) say
so in their metadata and take RGB 0-1. CenterNet (arXiv 1904.07850) finds peaks by comparing its
heatmap with its own 3x3 maximum, takes BGR by a mean and standard deviation of COCO's, and may leave
boxes in cells of 4 pixels. Of any other nothing says how its pixels are prepared: such a reading has
to be asked for, as ``rows``. Which column is which, and in what unit, is measured on noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from export.families.cells import strides_of
from export.families.ultralytics import is_ultralytics
from export.graph import parse, with_constants
from export.names import names_in
from export.pixels import UNIT, PixelRule
from export.reading import Finished, Floats, Reading
from export.signature import Signature, Tensor

NEEDED = "finished rows (one output float (1, K, 6): x1, y1, x2, y2, score, class), as of YOLOv10, YOLO26, CenterNet"

CENTERNET = PixelRule(
    color="bgr",
    mean=(0.40789654 * 255, 0.44719302 * 255, 0.47026115 * 255),
    std=(0.28863828 * 255, 0.27408164 * 255, 0.27809835 * 255),
)
"""CenterNet's own for COCO, in the order of OpenCV's pictures."""

CENTERNET_STRIDE = 4

_MOST_ROWS = 1000
_YOLOV10_ROWS = 300
_NOT_OF_YOLO = {"GridSample", "LayerNormalization", "NonMaxSuppression", "Erf"}
_UNKNOWN = "nothing in the file says how its pixels are prepared; taken as RGB 0-1"


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the score is (4 or 5; the class is the other), and pixels of a box's unit (x, y)."""

    score: int
    unit: tuple[float, float]
    doubt: str = ""


def readings(signature: Signature) -> list[Reading]:
    """How finished rows can be read: by what made them, or as rows of unknown making."""
    if len(signature.outputs) != 1:
        return []
    (output,) = signature.outputs
    rows = _rows(signature, output)
    if rows is None:
        return []
    columns = _columns(signature, rows)
    if columns is None:
        return []
    if is_ultralytics(signature):
        said = "Ultralytics end-to-end rows, as of YOLOv10 or YOLO26 (pixels taken as RGB 0-1)"
        return [_reading(signature, output, columns, "yolov10", said, UNIT, 0)]
    if (channels := _peak_channels(signature.model)) is not None:
        said = "CenterNet rows (pixels taken by CenterNet's mean and standard deviation for COCO, BGR)"
        return [_reading(signature, output, columns, "centernet", said, CENTERNET, channels)]
    classes = _modulus(signature.model)
    said = "finished rows (x1, y1, x2, y2, score, class)"
    found = [_reading(signature, output, columns, "rows", said, UNIT, classes, _UNKNOWN)]
    is_yolov10 = output.shape[-2] == _YOLOV10_ROWS and "TopK" in signature.operators
    if is_yolov10 and classes and columns.score == 4 and not signature.operators & _NOT_OF_YOLO:
        said = "YOLOv10 rows (pixels taken as RGB 0-1)"
        found.insert(0, _reading(signature, output, columns, "yolov10", said, UNIT, classes))
    return found


def decode(rows: Floats, columns: Columns) -> Finished:
    """The reference for the graph's decoder, one picture.

    Args:
        rows: float32 (K, 6).
        columns: which is which.
    """
    unit_x, unit_y = columns.unit
    boxes = rows[:, :4].astype(np.float64) * [unit_x, unit_y, unit_x, unit_y]
    classes = rows[:, 9 - columns.score].astype(np.int64)
    return Finished(boxes.astype(np.float32), rows[:, columns.score], classes)


def _rows(signature: Signature, output: Tensor) -> Floats | None:
    """The sample's rows (K, 6), where the output's shape is of this surface."""
    shape = output.shape
    if not output.kind.startswith("float") or len(shape) not in (2, 3) or shape[-1] != 6:
        return None
    if (len(shape) == 3 and shape[0] != 1) or not 1 <= shape[-2] <= _MOST_ROWS:
        return None
    if any(strides_of(shape[-2], signature.height, signature.width, anchors) for anchors in (1, 3)):
        return None
    rows = signature.sample[output.name].reshape(-1, 6).astype(np.float32)
    return rows if np.isfinite(rows).all() else None


def _columns(signature: Signature, rows: Floats) -> Columns | None:
    """What noise shows of the columns; None where they are none of this surface."""
    ordered = ((rows[:, 2:4] >= rows[:, :2]).all(axis=1) | (rows[:, :4] <= 0).all(axis=1)).all()
    whole = [(rows[:, column] == np.round(rows[:, column])).all() for column in (4, 5)]
    likely = [rows[:, column].min() >= -1 and rows[:, column].max() <= 1 for column in (4, 5)]
    if not ordered or not ((whole[1] and likely[0]) or (whole[0] and likely[1])):
        return None
    unit, doubt = _unit(signature, rows[(rows[:, 4] != 0) | (rows[:, 5] != 0)])
    if all(whole) and not is_ultralytics(signature):
        doubt = (
            "on noise it finds nothing, so that scores and classes cannot be told apart; score taken first"
        )
    is_score_first = bool(whole[1] and likely[0])
    return Columns(4 if is_score_first else 5, unit, doubt)


def _unit(signature: Signature, rows: Floats) -> tuple[tuple[float, float], str]:
    """Pixels of a box's unit, by where the centres on noise reach; and what is doubtful about it."""
    size = np.array([signature.width, signature.height], np.float64)
    pixels = (1.0, 1.0)
    if len(rows) == 0:
        return pixels, ""
    reach = ((rows[:, :2] + rows[:, 2:4]).astype(np.float64) / 2 / size).max(axis=0)
    if (reach <= 1.01 / size).all():
        return (float(size[0]), float(size[1])), ""
    if _peak_channels(signature.model) is None:
        return pixels, ""
    if (reach <= 1.01 / CENTERNET_STRIDE).all():
        doubt = "" if len(rows) >= 20 else f"only {len(rows)} boxes on noise to tell cells from pixels by"
        return (float(CENTERNET_STRIDE), float(CENTERNET_STRIDE)), doubt
    return pixels, ""


def _peak_channels(model: onnx.ModelProto) -> int | None:
    """Channels of a heatmap that is compared with its own 3x3 maximum, where the graph has one; else None."""
    makers = {output: node for node in model.graph.node for output in node.output}
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Equal":
            continue
        pools = [makers[name] for name in node.input if name in makers and makers[name].op_type == "MaxPool"]
        if not pools or pools[0].input[0] not in node.input:
            continue
        maker = makers.get(pools[0].input[0])
        while maker is not None and maker.op_type in ("Sigmoid", "Clip", "Identity", "Cast"):
            maker = makers.get(maker.input[0])
        is_conv = maker is not None and maker.op_type == "Conv" and maker.input[1] in weights
        return int(weights[maker.input[1]][0]) if maker is not None and is_conv else 0
    return None


def _modulus(model: onnx.ModelProto) -> int:
    """C where the class is what is left of an index of TopK by C; 0 where the graph has no such thing."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    found = {
        int(numpy_helper.to_array(constants[node.input[1]]).ravel()[0])
        for node in model.graph.node
        if node.op_type == "Mod" and node.input[1] in constants
    }
    return found.pop() if len(found) == 1 else 0


def _reading(
    signature: Signature,
    output: Tensor,
    columns: Columns,
    family: str,
    said: str,
    pixels: PixelRule,
    classes: int,
    doubt: str = "",
) -> Reading:
    names = names_in(signature.metadata)
    unit = "" if columns.unit == (1.0, 1.0) else f", boxes times {columns.unit[0]:g} and {columns.unit[1]:g}"
    order = "" if columns.score == 4 else ", class before score"
    name, shape = output.name, output.shape
    return Reading(
        family=family,
        said=said + unit + order,
        classes=classes or len(names or ()),
        pixels=pixels,
        wires={name: "rows"},
        decoder=lambda opset: _decoder(shape, columns, opset),
        decode=lambda outputs: decode(outputs[name].reshape(-1, 6).astype(np.float32), columns),
        nms=False,
        names=names if names is None or classes in (0, len(names)) else None,
        doubt="; ".join(filter(None, (doubt, columns.doubt))),
    )


def _decoder(shape: tuple[int, ...], columns: Columns, opset: int) -> onnx.ModelProto:
    has_batch = len(shape) == 3
    first, second = ("score", "class") if columns.score == 4 else ("class", "score")
    model = parse(
        f"""
        top_rows (float[{"B, K, 6" if has_batch else "K, 6"}] rows, float[4] units)
            => (float[B, K, 4] boxes, float[B, K] scores, int64[B, K] classes)
        {{
            split = Constant <value_ints = [4, 1, 1]> ()
            first_axis = Constant <value_ints = [0]> ()
            last_axis = Constant <value_ints = [2]> ()
            with_batch = {"Identity (rows)" if has_batch else "Unsqueeze (rows, first_axis)"}
            corners, {first}_column, {second}_column = Split <axis = 2> (with_batch, split)
            boxes = Mul (corners, units)
            scores = Squeeze (score_column, last_axis)
            class_numbers = Squeeze (class_column, last_axis)
            classes = Cast <to = 7> (class_numbers)
        }}
        """,
        opset,
    )
    return with_constants(model, {"units": np.array([*columns.unit, *columns.unit], np.float32)})
