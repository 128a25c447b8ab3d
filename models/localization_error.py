"""The error of classification with localization, as the ImageNet challenge counts it (arXiv 1409.0575).

Of each picture a system may say five classes, each with one box. It is right where one of the five is a
class of the picture, and its box overlaps an object of that class with an IoU of at least 0.5.

Works on arrays. Knows nothing of models, runtimes or pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from models.annotated import CocoFile
from models.errors import DataError
from models.evaluate import Prediction
from models.voc_evaluate import IOU, Floats, iou

GUESSES = 5


@dataclass(frozen=True, slots=True)
class LocalizationError:
    """Shares of the pictures that have objects, 0 to 1; lower is better."""

    localization_error: float
    """No guess has both the class and the box."""
    classification_error: float
    """No guess has the class."""
    pictures: int


def localization_error(
    file: CocoFile, names: Sequence[str], predictions: Iterable[Prediction], guesses: int = GUESSES
) -> LocalizationError:
    """Judge the best box of each of the ``guesses`` best classes of every picture.

    Difficult objects and crowds do not count, nor do pictures without others. One without a prediction is
    wrong.

    Raises:
        DataError: there is no object to compare with.
    """
    objects: dict[int, list[tuple[int, Floats]]] = {}
    for annotation in file.annotations:
        if not annotation.crowd:
            objects.setdefault(annotation.image_id, []).append((annotation.class_, np.array(annotation.box)))
    if not objects:
        raise DataError(f"{file.path}: has no box of {', '.join(names)}; nothing can be measured on it")
    placed = named = 0
    for prediction in predictions:
        here = objects.get(prediction.image_id, [])
        pairs = [
            iou(box, truth[None])[0]
            for guess, box in _guesses(prediction, guesses)
            for class_, truth in here
            if class_ == guess
        ]
        named += bool(pairs)
        placed += max(pairs, default=0.0) >= IOU
    count = len(objects)
    return LocalizationError(1 - placed / count, 1 - named / count, count)


def _guesses(prediction: Prediction, most: int) -> list[tuple[int, Floats]]:
    """The best classes, each with its best box."""
    best: dict[int, Floats] = {}
    for row in np.argsort(-prediction.scores, kind="stable").tolist():
        best.setdefault(int(prediction.classes[row]), prediction.boxes[row].astype(np.float64))
    return list(best.items())[:most]
