"""DETR and its descendants with raw heads: class logits (1, Q, columns) and boxes (1, Q, 4).

Boxes are centre x, centre y, width, height relative to the input. What became of the lineage differs in
what the logits mean and how the picture is prepared, and shows in how the graph makes its boxes:

    detr             one MLP and its sigmoid; softmax, the last column is no object (arXiv 2005.12872); YOLOS
    deformable-detr  an offset to a reference point, hence a logarithm; sigmoid (2010.04159); Conditional,
                     DAB and DINO
    rt-detr          the same, and the queries are picked from the encoder by TopK; sigmoid (2304.08069);
                     D-FINE (2410.13842) and DEIM (2412.04234)
    rf-detr          sizes by an exponential, no sigmoid; sigmoid (2511.09554); LW-DETR; outputs dets, labels

Pixels are normalised as ImageNet's, but RGB 0-1 for rt-detr; the last two stretch the picture to the
input, the others keep its shape. DINO with two stages shares rt-detr's evidence: 80 classes are taken as
rt-detr (COCO renumbered), 91 as deformable-detr (COCO's category numbers), another number is a question.

No non-maximum suppression. With sigmoid every (query, class) pair is a candidate, with softmax a query is
its best class, as in the projects' own postprocessors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from export.families.graph_path import end_of_head
from export.graph import parse, with_constants
from export.names import names_in
from export.pixels import IMAGENET, UNIT, PixelRule
from export.reading import Candidates, Finished, Outputs, Reading
from export.signature import Signature, Tensor
from models.coco_names import COCO_CATEGORIES, COCO_NAMES

NEEDED = (
    "DETR's heads (one input (1, 3, H, W); class logits (1, Q, columns) and boxes (1, Q, 4), centre and size "
    "relative to the input, named as logits and pred_boxes, pred_logits and pred_boxes, or labels and dets)"
)

_NAME_PAIRS = (
    *(("logits", "pred_boxes"), ("pred_logits", "pred_boxes"), ("labels", "dets")),
    *(("logits", "boxes"), ("pred_logits", "boxes")),
)
_ATTENTION = {"Softmax", "Attention", "MultiHeadAttention"}
_FROM_THE_MAP = {"GridSample", "TopK", "GatherElements"}
"""Deformable attention samples features; queries are picked from the encoder. DETR itself does neither."""

_FARTHEST = 2.0
"""Boxes in pixels would go far beyond; a few of the untrained reach out of the picture."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Kind:
    family: str
    said: str
    pixels: PixelRule
    naming: str = ""


_DETR = _Kind("detr", "DETR's heads (softmax, the last column is no object)", IMAGENET)
_DEFORMABLE = _Kind(
    "deformable-detr",
    "Deformable DETR's heads, or Conditional, DAB or DINO (sigmoid)",
    IMAGENET,
)
_RT_DETR = _Kind(
    "rt-detr",
    "RT-DETR's heads, or D-FINE or DEIM (sigmoid; DEIMv2's S to X want "
    "--mean 123.675,116.28,103.53 --std 58.395,57.12,57.375 besides)",
    UNIT.changed(resize="stretch"),
)
_RF_DETR = _Kind(
    "rf-detr",
    "RF-DETR's or LW-DETR's heads (sigmoid)",
    IMAGENET.changed(resize="stretch"),
    "one name a column: RF-DETR has one column more than it was trained with classes, the first in its "
    "early versions, the last in later ones; give that one any name, such as none",
)


def readings(signature: Signature) -> list[Reading]:
    """The ways to read a DETR with raw heads."""
    found = _heads(signature)
    if found is None or signature.layout != "nchw" or not signature.operators & _ATTENTION:
        return []
    logits, boxes = found
    if signature.sample[logits.name].min() >= 0:  # scores, not logits
        return []
    if np.quantile(np.abs(signature.sample[boxes.name]), 0.9) > _FARTHEST:
        return []
    kinds, doubt = _kinds(signature, logits, boxes)
    return [_reading(signature, kind, logits, boxes, doubt) for kind in kinds]


def _heads(signature: Signature) -> tuple[Tensor, Tensor] | None:
    """Logits and boxes, by name or, if nothing else comes out, by shape."""
    for names in _NAME_PAIRS:
        logits, boxes = (signature.output(name) for name in names)
        if logits is not None and boxes is not None and _fit(logits, boxes):
            return logits, boxes
    if len(signature.outputs) != 2:
        return None
    one, other = signature.outputs
    pairs = [(logits, boxes) for logits, boxes in ((one, other), (other, one)) if _fit(logits, boxes)]
    return pairs[0] if len(pairs) == 1 else None


def _fit(logits: Tensor, boxes: Tensor) -> bool:
    return (
        len(logits.shape) == 3
        and boxes.shape == (1, logits.shape[1], 4)
        and logits.shape[0] == 1
        and (logits.kind, boxes.kind) == ("float32", "float32")
    )


def _kinds(signature: Signature, logits: Tensor, boxes: Tensor) -> tuple[list[_Kind], str]:
    """What it may be, and what speaks against it."""
    operators, largest = end_of_head(signature.model, boxes.name)
    columns = logits.shape[2]
    if (logits.name, boxes.name) == ("labels", "dets") or "Exp" in operators:
        return [_RF_DETR], ""
    is_relative = "Log" in operators or largest > 4  # the reference points may be a constant, a bias has 4
    from_the_map = signature.operators & _FROM_THE_MAP
    if not is_relative:
        doubt = "its boxes are made as DETR's, but its queries are not" if from_the_map else ""
        return [_DETR, *([_DEFORMABLE, _RT_DETR] if doubt else [])], doubt
    if "TopK" not in signature.operators:
        return [_DEFORMABLE], ""
    by_columns = {len(COCO_NAMES): [_RT_DETR], len(COCO_CATEGORIES): [_DEFORMABLE]}
    return by_columns.get(columns, [_RT_DETR, _DEFORMABLE]), ""


def _reading(signature: Signature, kind: _Kind, logits: Tensor, boxes: Tensor, doubt: str) -> Reading:
    height, width = signature.height, signature.width
    _, count, columns = logits.shape
    is_softmax = kind is _DETR
    classes = columns - 1 if is_softmax else columns
    decode: Callable[[Floats, Floats, int, int], Candidates | Finished] = (
        decode_softmax if is_softmax else decode_sigmoid
    )

    def decoded(outputs: Outputs) -> Candidates | Finished:
        one, other = (outputs[tensor.name][0].astype(np.float32) for tensor in (logits, boxes))
        return decode(one, other, height, width)

    return Reading(
        family=kind.family,
        said=kind.said,
        classes=classes,
        pixels=kind.pixels,
        wires={logits.name: "logits", boxes.name: "relative_boxes"},
        decoder=lambda opset: _decoder(count, columns, height, width, is_softmax, opset),
        decode=decoded,
        nms=False,
        names=names_in(signature.metadata) or (COCO_CATEGORIES if classes == len(COCO_CATEGORIES) else None),
        naming=kind.naming,
        doubt=doubt,
    )


def decode_softmax(logits: Floats, boxes_cxcywh: Floats, input_height: int, input_width: int) -> Finished:
    """The reference for the graph's decoder, in NumPy, one picture: each query is its best class.

    Args:
        logits: (Q, C + 1), the last for no object.
        boxes_cxcywh: (Q, 4) relative to the input.
    """
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    chances = (raised / raised.sum(axis=1, keepdims=True))[:, :-1]
    best = chances.argmax(axis=1)
    scores = chances[np.arange(len(best)), best]
    return Finished(
        _in_pixels(boxes_cxcywh, input_height, input_width), scores.astype(np.float32), best.astype(np.int64)
    )


def decode_sigmoid(logits: Floats, boxes_cxcywh: Floats, input_height: int, input_width: int) -> Candidates:
    """As :func:`decode_softmax`, but each query may be each of C classes: logits are (Q, C)."""
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return Candidates(_in_pixels(boxes_cxcywh, input_height, input_width), scores.astype(np.float32))


def _in_pixels(boxes_cxcywh: Floats, input_height: int, input_width: int) -> Floats:
    x, y, width, height = boxes_cxcywh.astype(np.float64).T
    left, right = (x - width / 2) * input_width, (x + width / 2) * input_width
    top, bottom = (y - height / 2) * input_height, (y + height / 2) * input_height
    return np.stack([left, top, right, bottom], axis=1).astype(np.float32)


_CORNERS = """
            middle = Constant <value_ints = [2, 2]> ()
            half = Constant <value_float = 0.5> ()
            centres, box_sizes = Split <axis = 2> (relative_boxes, middle)
            half_sizes = Mul (box_sizes, half)
            top_left = Sub (centres, half_sizes)
            bottom_right = Add (centres, half_sizes)
            corners = Concat <axis = 2> (top_left, bottom_right)
            boxes = Mul (corners, sides)"""


def _decoder(
    count: int, columns: int, input_height: int, input_width: int, is_softmax: bool, opset: int
) -> onnx.ModelProto:
    if is_softmax:
        outputs = f"float[B, {count}] scores, int64[B, {count}] classes"
        score = f"""
            parts = Constant <value_ints = [{columns - 1}, 1]> ()
            last = Constant <value_ints = [-1]> ()
            chances = Softmax <axis = 2> (logits)
            of_classes, of_none = Split <axis = 2> (chances, parts)
            scores = ReduceMax <keepdims = 0> (of_classes, last)
            classes = ArgMax <axis = 2, keepdims = 0> (of_classes)"""
    else:
        outputs = f"float[B, {count}, {columns}] class_scores"
        score = "class_scores = Sigmoid (logits)"
    model = parse(
        f"""
        detr (float[B, {count}, {columns}] logits, float[B, {count}, 4] relative_boxes, float[4] sides)
            => (float[B, {count}, 4] boxes, {outputs})
        {{
            {_CORNERS}
            {score}
        }}
        """,
        opset,
    )
    return with_constants(model, {"sides": np.array([input_width, input_height] * 2, np.float32)})
