"""``lookout eval``: a model file over annotated pictures, through the runtime that serves cameras.

Joins the live app's detector with COCO's metrics, so the figures are those of what really runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import track

from models.coco import Example, load_coco
from models.evaluate import Metrics, Prediction, coco_metrics
from stream.detector import Detector


def evaluate(detector: Detector, annotations: Path, images: Path, score_threshold: float) -> Metrics:
    """COCO metrics of ``detector`` on the pictures that ``annotations`` lists, found under ``images``.

    Raises:
        DataError: the annotations are not COCO JSON, or a picture is missing or unreadable.
    """
    names = detector.spec.names
    examples = load_coco(annotations, images, names)
    return coco_metrics(annotations, names, _predictions(detector, examples, score_threshold))


def _predictions(detector: Detector, examples: list[Example], score_threshold: float) -> Iterator[Prediction]:
    for example in track(examples, "evaluating", console=Console(stderr=True), transient=True):
        (found,) = detector.detect_images([example.read()], score_threshold)
        yield Prediction(example.image_id, found.boxes, found.scores, found.classes)
