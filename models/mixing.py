"""Samples that are put together from others: two pictures seen through each other, objects taken elsewhere.

Knows nothing of how samples are made from pictures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from models.coco import Example
from models.sample import Sample

_MARGIN = 0.1
"""Of an object's sides, what of its surroundings is taken along and fades out."""
_SIZES = 0.1, 0.6
"""How long an object's longer side may be when it is put elsewhere, as a part of the picture's shorter one."""
_HIDDEN = 0.6
"""An object of which more is covered is no longer to be found."""
_LEAST_PX = 12


def mixed(first: Sample, second: Sample, share: float) -> Sample:
    """Two pictures seen through each other, with the objects of both (mixup, arXiv 1710.09412 and 1902.04103).

    Args:
        first, second: of one size.
        share: of the first, 0 to 1.
    """
    image = cv2.addWeighted(first.image, share, second.image, 1 - share, 0.0)
    parts = ("boxes", "classes", "ignored", "partial", "proposals")
    both: dict[str, Any] = {
        name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in parts
    }
    return Sample(np.asarray(image, np.uint8), **both)


@dataclass(frozen=True, slots=True)
class Objects:
    """The annotated objects of all pictures that are large enough to be shown elsewhere, by their classes."""

    examples: Sequence[Example]
    by_class: tuple[npt.NDArray[np.int64], ...]
    """Of each class that has any, int64 (K, 2): in which picture, and which of its boxes."""

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Objects:
        found: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for index, example in enumerate(examples):
            large = ((example.boxes[:, 2:] - example.boxes[:, :2]) >= _LEAST_PX).all(1)
            for row in np.flatnonzero(large).tolist():
                found[int(example.classes[row])].append((index, row))
        return cls(examples, tuple(np.array(found[each]) for each in sorted(found)))

    def draw(self, rng: np.random.Generator) -> tuple[Example, int]:
        """A picture and which of its boxes: every class is as likely, so that rare ones are seen too."""
        places = self.by_class[int(rng.integers(len(self.by_class)))]
        index, row = places[int(rng.integers(len(places)))].tolist()
        return self.examples[index], row


def pasted(sample: Sample, objects: Objects, rng: np.random.Generator) -> Sample:
    """The sample with an object of another picture in it, cut out as its box is (Dwibedi et al., arXiv 1708.01642).

    As it was, where no picture has an object that is large enough.
    """
    if not objects.by_class:
        return sample
    example, row = objects.draw(rng)
    x1, y1, x2, y2 = example.boxes[row].tolist()
    width, height = x2 - x1, y2 - y1
    left, top = int(max(0, x1 - _MARGIN * width)), int(max(0, y1 - _MARGIN * height))
    right, bottom = int(x2 + _MARGIN * width + 1), int(y2 + _MARGIN * height + 1)
    part = example.read()[top:bottom, left:right]
    canvas_height, canvas_width = sample.image.shape[:2]
    scale = rng.uniform(*_SIZES) * min(canvas_height, canvas_width) / max(width, height)
    resized = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    part = np.asarray(resized[:canvas_height, :canvas_width], np.uint8)
    box = np.array([x1 - left, y1 - top, x2 - left, y2 - top], np.float32) * np.float32(scale)
    there = (
        int(rng.integers(0, canvas_width - part.shape[1] + 1)),
        int(rng.integers(0, canvas_height - part.shape[0] + 1)),
    )
    return _laid_over(sample, part, box, int(example.classes[row]), there)


def _laid_over(
    sample: Sample, part: np.ndarray, box: np.ndarray, class_: int, there: tuple[int, int]
) -> Sample:
    """``part``, whose object is at ``box`` in it, laid over the sample with its corner at ``there`` (x, y)."""
    height, width = part.shape[:2]
    x, y = there
    ways = (np.arange(width), box[0], box[2]), (np.arange(height), box[1], box[3])
    across, down = (_fading(places + 0.5, low, high) for places, low, high in ways)
    opaque = (down[:, None] * across)[..., None]
    image = sample.image.copy()
    under = image[y : y + height, x : x + width]
    under[:] = np.rint(opaque * part + (1 - opaque) * under)
    placed = np.clip(box, 0, [width, height, width, height]) + np.array([x, y, x, y], np.float32)
    hidden = _covered(sample.boxes, placed) > _HIDDEN
    return replace(
        sample,
        image=image,
        boxes=np.concatenate([sample.boxes[~hidden], placed[None].astype(np.float32)]),
        classes=np.append(sample.classes[~hidden], class_),
        ignored=np.concatenate([sample.ignored, sample.boxes[hidden]]),
    )


def _fading(places: np.ndarray, low: float, high: float) -> np.ndarray:
    """1 from ``low`` to ``high``, down to 0 over the margin on both sides."""
    margin = max(1.0, _MARGIN * (high - low))
    return np.clip(1 - np.maximum(low - places, places - high) / margin, 0, 1)


def _covered(boxes: np.ndarray, by: np.ndarray) -> np.ndarray:
    sides = np.minimum(boxes[:, 2:], by[2:]) - np.maximum(boxes[:, :2], by[:2])
    return np.asarray(np.prod(np.maximum(sides, 0), 1) / np.prod(boxes[:, 2:] - boxes[:, :2], 1))
