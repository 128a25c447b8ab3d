"""What the fitted detectors learn from: pictures, and the windows of them that show no object.

Knows nothing of what the features are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from models.augment import letterboxed
from models.boxes import nms, pairwise_iou
from models.coco import Example
from models.lineage.svm import Svm, fit_svm
from models.sample import Sample
from models.target import in_ignored

BACKGROUND_IOU = 0.3
"""A window that overlaps an object by more is no negative (R-CNN's figure)."""
_DISTINCT = 0.5
"""Of windows that overlap by more, only the one with the highest score is taken."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture in the detector's input size, and what is known of it, as tensors."""

    image: Tensor
    """uint8 (H, W, 3)."""
    boxes: Tensor
    """float32 (M, 4), xyxy in input pixels."""
    classes: Tensor
    """int64 (M,)."""
    ignored: Tensor
    """float32 (K, 4)."""

    @classmethod
    def of(cls, example: Example, input_height: int, input_width: int) -> Scene:
        """The scene that the live app would see.

        Raises:
            DataError: the picture cannot be read.
        """
        sample: Sample = letterboxed(example, input_height, input_width)
        parts = (sample.image, sample.boxes, sample.classes, sample.ignored)
        return cls(*map(torch.from_numpy, parts))

    def of_class(self, class_: int) -> Tensor:
        """The boxes of a class, float32 (M, 4)."""
        return self.boxes[self.classes == class_]


def chosen(examples: list[Example], count: int, seed: int) -> list[Example]:
    """At most ``count`` different pictures, at random."""
    different = list({example.path: example for example in examples}.values())
    order = np.random.default_rng(seed).permutation(len(different))[:count]
    return [different[index] for index in sorted(order.tolist())]


def background(scene: Scene, class_: int, boxes: Tensor) -> Tensor:
    """Which of the boxes (N, 4) show no object of the class, as far as is known: bool (N,)."""
    free = torch.ones(len(boxes), dtype=torch.bool)
    objects = scene.of_class(class_)
    if len(objects):
        free &= pairwise_iou(boxes, objects).amax(1) < BACKGROUND_IOU
    return free & ~in_ignored(boxes, scene.ignored)


def negatives(scene: Scene, class_: int, boxes: Tensor, scores: Tensor, above: float, count: int) -> Tensor:
    """The rows of the best windows that show no object of a class: int64 (K,), K at most ``count``.

    Args:
        scene: the picture.
        class_: the class.
        boxes: float32 (N, 4), the windows' objects in input pixels.
        scores: float32 (N,) of the class.
        above: lower scores are not taken.
        count: how many are taken at most; none is much like another.
    """
    rows = (scores > above).nonzero()[:, 0]
    best = scores[rows].topk(min(len(rows), 100 * count)).indices
    rows = rows[best]
    rows = rows[background(scene, class_, boxes[rows])][: 20 * count]
    zeros = torch.zeros(len(rows), dtype=torch.int64)
    return rows[nms(boxes[rows], scores[rows], zeros, _DISTINCT)[:count]]


@dataclass(slots=True)
class Cache:
    """The positives and the negatives of one class, and how much each matters so far."""

    positives: Tensor
    """float32 (P, D)."""
    negatives: list[Tensor] = field(default_factory=list)
    """float32 (D,) each."""
    _seen: set[tuple[int, ...]] = field(default_factory=set)
    _multipliers: Tensor = field(default_factory=lambda: torch.zeros(0))
    """Of the negatives that were there before."""

    def add(self, name: tuple[int, ...], features: Tensor) -> None:
        """Take in a negative, unless one of this name (its picture, its window) is there already."""
        if name not in self._seen:
            self._seen.add(name)
            self.negatives.append(features)

    def fit(self, cost: float, tolerance: float, seed: int, least: Tensor | None = None) -> Svm:
        """The SVM of all that is there, from where the last one left the negatives."""
        features = torch.cat([self.positives, torch.stack(self.negatives)])
        count = len(self.positives)
        start = torch.zeros(len(features))
        start[count : count + len(self._multipliers)] = self._multipliers
        positive = torch.arange(len(features)) < count
        svm = fit_svm(features, positive, cost, tolerance=tolerance, start=start, seed=seed, least=least)
        self._multipliers = svm.multipliers[count:]
        return svm
