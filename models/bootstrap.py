"""Whether a detector is better than another, or only luckier in its pictures: a paired bootstrap (Efron 1979).

As many pictures as there are, are drawn from them with replacement, again and again, and all detectors are measured
on the same draws: what makes one hard or easy for all of them falls out of their difference. It tells of these
pictures' number alone, not of another training, nor of values that were chosen on them. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.annotated import CocoFile
from models.evaluate import Prediction, ground_truth, judged

_DRAWS = 200


@dataclass(frozen=True, slots=True)
class Lead:
    """By how much AP50 one detector is ahead of another."""

    difference: float
    """On all pictures, each once."""
    low: float
    """Of a hundred draws, two and a half are below it,"""
    high: float
    """and as many above it."""


def drawn_ap50(
    file: CocoFile,
    names: Sequence[str],
    predictions: Sequence[Prediction],
    draws: int = _DRAWS,
    seed: int = 0,
) -> npt.NDArray[np.float64]:
    """AP50 of a detector on all pictures, then on each draw.

    Args:
        file: the annotations, of the detector's classes ``names``.
        predictions: what it found in each picture of ``file``, in its order.
        seed: with the same one, detectors are measured on the same draws.

    Returns:
        float64 (1 + draws,); NaN where the pictures drawn have no object.
    """
    rng = np.random.default_rng(seed)
    count = len(file.pictures)
    figures = []
    for rows in [np.arange(count), *(rng.integers(count, size=count) for _ in range(draws))]:
        drawn = _of(file, rows)
        if all(annotation.crowd for annotation in drawn.annotations):
            figures.append(np.nan)
            continue
        some = [replace(predictions[row], image_id=number) for number, row in enumerate(rows)]
        figures.append(judged(ground_truth(drawn, names), names, some).AP50)
    return np.array(figures)


def lead(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> Lead:
    """Of one detector over another, both by :func:`drawn_ap50` with one seed."""
    apart = first - second
    low, high = np.nanquantile(apart[1:], [0.025, 0.975])
    return Lead(float(apart[0]), float(low), float(high))


def _of(file: CocoFile, rows: npt.NDArray[np.int64]) -> CocoFile:
    """These pictures, each another one however often it is there."""
    by_picture: dict[int, list[int]] = {picture.image_id: [] for picture in file.pictures}
    for index, annotation in enumerate(file.annotations):
        by_picture[annotation.image_id].append(index)
    pictures = [file.pictures[row] for row in rows]
    return replace(
        file,
        pictures=tuple(replace(picture, image_id=number) for number, picture in enumerate(pictures)),
        annotations=tuple(
            replace(file.annotations[index], image_id=number)
            for number, picture in enumerate(pictures)
            for index in by_picture[picture.image_id]
        ),
    )
