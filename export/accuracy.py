"""Average precision of a contract file on annotated pictures, by onnxruntime on the CPU.

Every detection that the file gives counts, as in ``lookout eval``. Needs faster-coco-eval. Knows nothing of
the live app.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import track

from export.artifact import ModelSpec
from export.cpu import cpu_session
from export.feeds import Feeds
from models.annotations import read_annotations
from models.coco import Example, examples_of

if TYPE_CHECKING:
    from faster_coco_eval import COCO

    from models.evaluate import Prediction


@dataclass(frozen=True, slots=True)
class Annotated:
    """COCO JSON or VOC annotations, and the folder of their pictures."""

    annotations: Path
    images: Path


@dataclass(frozen=True, slots=True)
class Truth:
    """Annotated pictures, read for a model's names."""

    examples: list[Example]
    boxes: COCO

    @classmethod
    def read(cls, annotated: Annotated, names: tuple[str, ...]) -> Truth:
        """Raises DataError: the annotations are wrong, or a picture is missing."""
        from models.evaluate import ground_truth  # needs the train extra, which other exports do without

        file = read_annotations(annotated.annotations, annotated.images, names)
        return cls(examples_of(file, annotated.images), ground_truth(file, names))


def average_precision(path: Path, spec: ModelSpec, truth: Truth, what: str) -> float:
    """COCO AP, 0 to 1, of a contract file.

    Args:
        path: of the file.
        spec: of the file.
        truth: what to measure on.
        what: the file's name on the progress bar.

    Raises:
        DataError: a picture is unreadable.
    """
    from models.evaluate import judged

    shown = track(truth.examples, f"AP of {what}", console=Console(stderr=True), transient=True)
    return judged(truth.boxes, spec.names, _predictions(path, spec, shown)).AP


def ap50_by_class(
    path: Path, spec: ModelSpec, truth: Truth, names: tuple[str, ...], what: str
) -> dict[str, float]:
    """AP at IoU 0.5, 0 to 1, of a contract file, by each of ``names`` that has a box in ``truth``.

    Args:
        path: of the file.
        spec: of the file, whose classes are matched by name.
        truth: what to measure on.
        names: the classes of ``truth``.
        what: the file's name on the progress bar.

    Raises:
        DataError: a picture is unreadable.
    """
    from models.evaluate import Prediction, judged

    index = np.array([names.index(name) if name in names else -1 for name in spec.names], np.int64)
    shown = track(truth.examples, f"AP50 of {what}", console=Console(stderr=True), transient=True)
    translated = []
    for found in _predictions(path, spec, shown):
        classes = index[found.classes]
        known = classes >= 0
        translated.append(Prediction(found.image_id, found.boxes[known], found.scores[known], classes[known]))
    return judged(truth.boxes, names, translated).per_class_AP50


def _predictions(path: Path, spec: ModelSpec, examples: Iterable[Example]) -> Iterator[Prediction]:
    from models.evaluate import Prediction

    session = cpu_session(str(path))
    for example in examples:
        picture = example.read()
        height, width = picture.shape[:2]
        letterbox = spec.place(width, height)
        values = session.run(["boxes", "scores", "classes"], Feeds.of([picture], spec).part(0, 1))
        boxes, scores, classes = (value[0] for value in values)
        clipped = np.clip(letterbox.to_source(boxes), 0, np.array([width, height, width, height], np.float32))
        real = (scores > 0) & (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
        yield Prediction(example.image_id, clipped[real], scores[real], classes[real])
