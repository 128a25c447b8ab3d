"""From decoded predictions to detections, plainly: what training's validation measures.

The exported graph does the same with its own nodes. Knows nothing of pictures or files.
"""

from __future__ import annotations

from torch import Tensor

from models.boxes import nms
from models.thresholds import NMS_THRESHOLD

_CANDIDATES = 1000


def detections(
    boxes: Tensor,
    class_scores: Tensor,
    score_threshold: float,
    nms_threshold: float = NMS_THRESHOLD,
    limit: int = 100,
) -> tuple[Tensor, Tensor, Tensor]:
    """The objects in one picture, best first.

    Args:
        boxes: float32 (N, 4), xyxy.
        class_scores: float32 (N, C), 0 to 1.
        score_threshold: lower scores are dropped.
        nms_threshold: IoU above which the lower-scoring box of the same class is dropped.
        limit: at most this many are returned.

    Returns:
        boxes float32 (K, 4), scores float32 (K,), classes int64 (K,).
    """
    rows, classes = (class_scores > score_threshold).nonzero(as_tuple=True)
    scores = class_scores[rows, classes]
    if len(scores) > _CANDIDATES:
        best = scores.topk(_CANDIDATES).indices
        rows, classes, scores = rows[best], classes[best], scores[best]
    kept = nms(boxes[rows], scores, classes, nms_threshold)[:limit]
    return boxes[rows[kept]], scores[kept], classes[kept]
