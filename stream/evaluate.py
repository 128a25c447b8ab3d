"""``lookout eval``: a model file over annotated pictures, through the runtime that serves cameras.

Joins the live app's detector with the metrics of COCO, VOC and ImageNet, so the figures are those of what
really runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import track

from models.annotations import read_annotations
from models.coco import Example, examples_of
from models.evaluate import Metrics, Prediction, ground_truth, judged
from models.localization_error import LocalizationError, localization_error
from models.voc_evaluate import VocMetrics, curves, voc_metrics
from stream.detector import Detector
from stream.errors import UsageError

Metric = Literal["coco", "voc", "voc11", "localization"]


def evaluate(
    detector: Detector,
    annotations: Path,
    images: Path,
    score_threshold: float,
    metric: Metric = "coco",
    plot: Path | None = None,
) -> Metrics | VocMetrics | LocalizationError:
    """Figures of ``detector`` on the pictures that ``annotations`` lists, found under ``images``.

    Args:
        metric: whose figures; ``voc11`` is VOC's of before 2010, at eleven recalls.
        plot: a file for precision/recall curves at IoU 0.5.

    Raises:
        DataError: the annotations are wrong, or a picture is missing or unreadable.
        UsageError: ``plot`` cannot be drawn.
    """
    if plot is not None:
        _check_plot(plot)
    names = detector.spec.names
    file = read_annotations(annotations, images, names)
    predictions = list(_predictions(detector, examples_of(file, images), score_threshold))
    if plot is not None:
        from models.curve_plot import draw_curves

        draw_curves(curves(file, names, predictions), plot)
    if metric == "coco":
        return judged(ground_truth(file, names), names, predictions)
    if metric == "localization":
        return localization_error(file, names, predictions)
    return voc_metrics(curves(file, names, predictions), eleven_points=metric == "voc11")


def _check_plot(plot: Path) -> None:
    """Say before the evaluation what would otherwise end it; raises ModuleNotFoundError without matplotlib."""
    import matplotlib  # noqa: F401

    if plot.suffix not in (".png", ".svg", ".pdf") or not plot.parent.is_dir():
        raise UsageError(f"--curves {plot}: expected a .png, .svg or .pdf file in a folder that is there")


def _predictions(detector: Detector, examples: list[Example], score_threshold: float) -> Iterator[Prediction]:
    for example in track(examples, "evaluating", console=Console(stderr=True), transient=True):
        (found,) = detector.detect_images([example.read()], score_threshold)
        yield Prediction(example.image_id, found.boxes, found.scores, found.classes)
