"""What becomes of the boxes that a teacher finds in a picture: labels, regions left open, or nothing.

What it is sure of is a label. What it is unsure of is neither an object nor background: a region with ``iscrowd``, in
which training learns nothing. What people have annotated is always right. Knows nothing of models or pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.coco import Example
from models.lineage.recall import overlap

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_TWICE = 0.65
"""IoU above which two boxes of one class are one object that the teacher has two names for."""
_SAME, _PERHAPS = 0.5, 0.3
"""IoU with an annotated box of its class from which a box is that object, and from which it may be."""


class Boxes(NamedTuple):
    """Of one picture, best first."""

    boxes: Floats
    """float32 (N, 4), xyxy in source pixels."""
    scores: Floats
    """float32 (N,)."""
    classes: Ints
    """int64 (N,), indices into the wanted names."""

    def where(self, these: Bools | Ints) -> Boxes:
        return Boxes(self.boxes[these], self.scores[these], self.classes[these])


@dataclass(frozen=True, slots=True)
class Rules:
    """Scores from which a box counts, and the shortest side, in source pixels, of one that can be a label."""

    sure: float = 0.5
    unsure: float = 0.25
    shortest_px: float = 0.0


def settle(found: Boxes, known: Example | None, rules: Rules) -> tuple[Boxes, Boxes]:
    """The labels and the open regions among what a teacher found.

    Args:
        found: by the teacher, its classes translated; -1 for one that is not wanted.
        known: what people annotated in that picture.
        rules: what counts.
    """
    found = _once(found.where((found.classes >= 0) & (found.scores >= rules.unsure)))
    sides = (found.boxes[:, 2:] - found.boxes[:, :2]).min(1, initial=np.inf)
    sure = (found.scores >= rules.sure) & (sides >= rules.shortest_px)
    free = np.ones(len(sure), np.bool_)
    if known is not None:
        likest = np.where(
            found.classes[:, None] == known.classes, overlap(found.boxes, known.boxes), 0.0
        ).max(1, initial=0.0)
        free = (likest < _SAME) & ~_inside(found.boxes, known.crowds)
        sure &= likest < _PERHAPS
    return found.where(sure & free), found.where(~sure & free)


def _once(found: Boxes) -> Boxes:
    """Without the worse of two boxes of one class that lie on each other."""
    rivals = (overlap(found.boxes, found.boxes) > _TWICE) & (found.classes[:, None] == found.classes)
    kept: list[int] = []
    for row in range(len(found.scores)):
        if not rivals[row, kept].any():
            kept.append(row)
    return found.where(np.array(kept, np.int64))


def _inside(boxes: Floats, regions: Floats) -> Bools:
    """bool (N,): whether most of a box (N, 4) lies in one of the regions (K, 4)."""
    low = np.maximum(boxes[:, None, :2], regions[:, :2])
    shared = (np.minimum(boxes[:, None, 2:], regions[:, 2:]) - low).clip(0).prod(2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return np.asarray((shared > 0.5 * areas[:, None]).any(1), np.bool_)


class LabelFile:
    """A COCO document that pictures and boxes are added to."""

    def __init__(self, document: dict[str, Any], names: tuple[str, ...]) -> None:
        """Begin with what is in ``document``, which is changed; categories of ``names`` that it lacks are added."""
        self.document = document
        categories = document["categories"]
        ids = {entry["name"]: entry["id"] for entry in reversed(categories)}
        for name in names:
            if name not in ids:
                ids[name] = 1 + max((entry["id"] for entry in categories), default=0)
                categories.append({"id": ids[name], "name": name})
        self._ids = [ids[name] for name in names]
        taken = [entry.get("id") for entry in document["annotations"]]
        self._next = 1 + max((each for each in taken if isinstance(each, int)), default=0)

    def picture(self, image_id: int, name: str, width: int, height: int) -> None:
        """Add a picture; its name is relative to the folder of the pictures."""
        entry = {"id": image_id, "file_name": name, "width": width, "height": height}
        self.document["images"].append(entry)

    def boxes(self, image_id: int, found: Boxes, crowd: bool) -> None:
        """Add boxes, each with its score."""
        for (x1, y1, x2, y2), score, class_ in zip(*(part.tolist() for part in found), strict=True):
            entry = {
                "id": self._next,
                "image_id": image_id,
                "category_id": self._ids[class_],
                "bbox": [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                "area": round((x2 - x1) * (y2 - y1), 2),
                "iscrowd": int(crowd),
                "score": round(score, 4),
            }
            self.document["annotations"].append(entry)
            self._next += 1
