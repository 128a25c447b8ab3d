"""``lookout eval``: a model file over annotated pictures, through the runtime that serves cameras.

Joins the live app's detector with COCO's metrics, so the figures are those of what really runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
from rich.console import Console
from rich.progress import track

from models.coco import read_json
from models.errors import DataError
from models.evaluate import Metrics, Prediction, coco_metrics
from stream.detector import Detector


def evaluate(detector: Detector, annotations: Path, images: Path, score_threshold: float) -> Metrics:
    """COCO metrics of ``detector`` on the pictures that ``annotations`` lists, found under ``images``.

    Raises:
        DataError: the annotations are not COCO JSON, or a picture is missing or unreadable.
    """
    return coco_metrics(
        annotations, detector.spec.names, _predictions(detector, annotations, images, score_threshold)
    )


def _predictions(
    detector: Detector, annotations: Path, images: Path, score_threshold: float
) -> Iterator[Prediction]:
    pictures = read_json(annotations)["images"]
    for picture in track(pictures, "evaluating", console=Console(stderr=True), transient=True):
        path = images / picture["file_name"]
        bgr = cv2.imread(str(path)) if path.is_file() else None
        if bgr is None:
            raise DataError(
                f"{path}: cannot be read as a picture; {annotations} lists it, --images says where"
            )
        (found,) = detector.detect_images([cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)], score_threshold)
        yield Prediction(picture["id"], found.boxes, found.scores, found.classes)
