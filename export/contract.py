"""The end of every contract graph: from what a detector says to the contract's three tensors.

A *body* is a model that turns ``images`` (uint8, RGB), and ``proposals`` (float32, boxes in input pixels) if it
judges those, into candidates or into finished detections:

    boxes         float32 (B, N, 4)  x1, y1, x2, y2 in input pixels
    class_scores  float32 (B, N, C)  0-1: candidates, any of which may be any class
    scores        float32 (B, N)     0-1: detections of one class each, in place of class_scores,
    classes       int64   (B, N)     with their classes

``complete`` grafts the rest of the contract (README, "The one graph contract") onto any body. Knows
nothing of families, torch or files.
"""

from __future__ import annotations

import onnx
from onnx import compose

from export.graph import OPSET, join, opset_of, parse, rename, static_shape

CANDIDATES = 300
"""The boxes of a picture, by best class, that enter NMS; the rest are never looked at."""

KEPT = 100
"""Q, the rows of the output: as many detections as COCO counts in a picture."""

SCORE_FLOOR = 0.001
"""Below this nothing leaves the graph; the host thresholds higher, at run time."""


_PADDED = f"""
            last = Constant <value_ints = [-1]> ()
            floor = Constant <value_float = {SCORE_FLOOR:.9f}> ()
            no_score = Constant <value_float = 0.0> ()
            no_class = Constant <value_int = 0> ()
            rows = Unsqueeze (top_rows, last)
            top_boxes = GatherND <batch_dims = 1> (raw_boxes, rows)
            is_real = Greater (top_scores, floor)
            is_real_row = Unsqueeze (is_real, last)
            boxes = Where (is_real_row, top_boxes, no_score)
            scores = Where (is_real, top_scores, no_score)
            classes = Where (is_real, top_classes, no_class)"""
"""From ``top_scores``, descending, their ``top_rows`` of ``raw_boxes`` and ``top_classes`` to the outputs."""


def postprocess(candidates: int, classes: int, nms_threshold: float, opset: int = OPSET) -> onnx.ModelProto:
    """A body's two tensors to the contract's three: top candidates, per-class NMS, top scores, padding.

    A candidate enters under every class, not only its best: on COCO that is worth 0.4 AP and costs
    nothing here. Surviving scores are scattered back to their (class, candidate) place, which makes
    the ragged output of NonMaxSuppression rectangular and each picture independent of its batch.

    Args:
        candidates: N of the body.
        classes: C of the body.
        nms_threshold: IoU above which the lower-scoring box of the same class is dropped.
    """
    entering = min(CANDIDATES, candidates)
    kept = min(KEPT, entering * classes)
    return parse(
        f"""
        postprocess (float[B, {candidates}, 4] raw_boxes, float[B, {candidates}, {classes}] class_scores)
            => (float[B, {kept}, 4] boxes, float[B, {kept}] scores, int64[B, {kept}] classes)
        {{
            last = Constant <value_ints = [-1]> ()
            no_score = Constant <value_float = 0.0> ()
            no_class = Constant <value_int = 0> ()

            best_scores = ReduceMax <keepdims = 0> (class_scores, last)
            entering = Constant <value_ints = [{entering}]> ()
            _, top_index = TopK (best_scores, entering)
            top_rows = Unsqueeze (top_index, last)
            top_boxes = GatherND <batch_dims = 1> (raw_boxes, top_rows)
            top_class_scores = GatherND <batch_dims = 1> (class_scores, top_rows)
            scores_by_class = Transpose <perm = [0, 2, 1]> (top_class_scores)

            threshold = Constant <value_float = {nms_threshold:.9f}> ()
            floor = Constant <value_float = {SCORE_FLOOR:.9f}> ()
            per_class = Constant <value_int = {entering}> ()
            selected = NonMaxSuppression (top_boxes, scores_by_class, per_class, threshold, floor)
            survivor_scores = GatherND (scores_by_class, selected)
            nothing = Mul (scores_by_class, no_score)
            surviving_scores = ScatterND (nothing, selected, survivor_scores)

            flat = Constant <value_ints = [0, -1]> ()
            flat_scores = Reshape (surviving_scores, flat)
            kept = Constant <value_ints = [{kept}]> ()
            scores, order = TopK (flat_scores, kept)
            entering_scalar = Constant <value_int = {entering}> ()
            ordered_classes = Div (order, entering_scalar)
            ordered_row = Mod (order, entering_scalar)
            rows = Unsqueeze (ordered_row, last)
            ordered_boxes = GatherND <batch_dims = 1> (top_boxes, rows)
            is_real = Greater (scores, no_score)
            is_real_row = Unsqueeze (is_real, last)
            boxes = Where (is_real_row, ordered_boxes, no_score)
            classes = Where (is_real, ordered_classes, no_class)
        }}
        """,
        opset,
    )


def ranking(candidates: int, classes: int, opset: int = OPSET) -> onnx.ModelProto:
    """As :func:`postprocess` for detectors that suppress nothing (DETR's lineage): top scores, padding."""
    kept = min(KEPT, candidates * classes)
    return parse(
        f"""
        ranking (float[B, {candidates}, 4] raw_boxes, float[B, {candidates}, {classes}] class_scores)
            => (float[B, {kept}, 4] boxes, float[B, {kept}] scores, int64[B, {kept}] classes)
        {{
            flat = Constant <value_ints = [0, -1]> ()
            count = Constant <value_int = {classes}> ()
            flat_scores = Reshape (class_scores, flat)
            kept = Constant <value_ints = [{kept}]> ()
            top_scores, order = TopK (flat_scores, kept)
            top_rows = Div (order, count)
            top_classes = Mod (order, count)
            {_PADDED}
        }}
        """,
        opset,
    )


def padding(opset: int = OPSET) -> onnx.ModelProto:
    """Finished detections, as many as there are, to the contract's rows: sorted, cut or filled up with 0."""
    return parse(
        f"""
        padding (float[B, N, 4] some_boxes, float[B, N] some_scores, int64[B, N] some_classes)
            => (float[B, {KEPT}, 4] boxes, float[B, {KEPT}] scores, int64[B, {KEPT}] classes)
        {{
            last_axis = Constant <value_ints = [-1]> ()
            before = Constant <value_ints = [0, 0, 0, {KEPT}]> ()
            before_boxes = Constant <value_ints = [0, 0, 0, 0, {KEPT}, 0]> ()
            raw_boxes = Pad (some_boxes, before_boxes)
            padded_scores = Pad (some_scores, before)
            all_classes = Pad (some_classes, before)
            kept = Constant <value_ints = [{KEPT}]> ()
            top_scores, top_rows = TopK (padded_scores, kept)
            class_rows = Unsqueeze (top_rows, last_axis)
            top_classes = GatherND <batch_dims = 1> (all_classes, class_rows)
            {_PADDED}
        }}
        """,
        opset,
    )


def complete(body: onnx.ModelProto, nms_threshold: float | None) -> onnx.ModelProto:
    """The contract graph of a body (without its metadata).

    Args:
        body: see above; its outputs in the order shown there.
        nms_threshold: IoU above which the lower-scoring box of the same class is dropped; None drops none.
            Finished detections are past that.
    """
    opset = opset_of(body)
    outputs = [value.name for value in body.graph.output]
    if len(outputs) == 3:
        tail = padding(opset)
    else:
        _, candidates, classes = static_shape(body.graph.output[1])
        tail = (
            ranking(candidates, classes, opset)
            if nms_threshold is None
            else postprocess(candidates, classes, nms_threshold, opset)
        )
    tail = compose.add_prefix(tail, "nms/")
    for output in tail.graph.output:
        rename(tail.graph, output.name, output.name.removeprefix("nms/"))
    head = compose.add_prefix(body, "detector/")
    for value in body.graph.input:
        rename(head.graph, f"detector/{value.name}", value.name)
    wires = {f"detector/{name}": value.name for name, value in zip(outputs, tail.graph.input, strict=True)}
    return join(head, tail, wires)
