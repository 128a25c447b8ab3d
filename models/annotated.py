"""What is read from annotations, whatever their form, and which of their boxes are kept.

Knows nothing of files or tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.errors import DataError

Box = tuple[float, float, float, float]

_OUTSIDE_TOLERANCE_PX = 4.0
"""Annotation tools overshoot the border a little; boxes are clipped if it is no more than this."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An entry of ``images``."""

    image_id: int
    file_name: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Annotation:
    """One box of a class the model has."""

    image_id: int
    class_: int
    box: Box
    """xyxy in source pixels, inside the picture."""
    area: float
    """Square pixels of the object where the file says so, else of the box."""
    crowd: bool


@dataclass(frozen=True, slots=True)
class CocoFile:
    """A checked COCO JSON file, or others read into the same form, as far as it concerns a model's classes."""

    path: Path
    categories: tuple[str, ...]
    """What all its categories are called, the renamed ones by their new names."""
    pictures: tuple[Picture, ...]
    annotations: tuple[Annotation, ...]
    foreign: int
    """Boxes left out because the model does not have their category."""
    empty: int
    """Boxes left out because they have no area."""


class Selection:
    """Which boxes of a file are kept, while it is read: those of the model's classes that have an area."""

    def __init__(
        self,
        path: Path,
        names: Sequence[str],
        renamed: Mapping[str, str] | None,
        categories: Iterable[str] = (),
    ) -> None:
        """Begin with nothing.

        Args:
            path: of the file.
            names: the model's classes.
            renamed: what categories of the file are called in ``names``.
            categories: of the file, where it lists them.
        """
        self._path, self._names, self._renamed = path, names, renamed or {}
        self._index = {name: position for position, name in enumerate(names)}
        self._categories = dict.fromkeys(categories)
        self._annotations: list[Annotation] = []
        self._foreign = self._empty = 0

    def class_of(self, category: str) -> int | None:
        """The model's class that a box is of; None, which is counted, where it has none such."""
        self._categories[category] = None
        class_ = self._index.get(self._renamed.get(category, category))
        self._foreign += class_ is None
        return class_

    def add(self, annotation: Annotation | None) -> None:
        """Keep a box; None is one without area, which is counted."""
        if annotation is None:
            self._empty += 1
        else:
            self._annotations.append(annotation)

    def check(self) -> None:
        """To be called once all categories are known; without it, ``file`` says the same.

        Raises:
            DataError: no category is among the model's classes, or one that is renamed is not there.
        """
        found = ", ".join(list(self._categories)[:20]) or "it has none"
        for old in self._renamed:
            if old not in self._categories:
                raise DataError(f"{self._path}: map: {old!r} is none of its categories ({found})")
        if not any(name in self._index for name in self._called()):
            raise DataError(
                f"{self._path}: none of its categories ({found}) is among {', '.join(self._names)}; "
                "a recipe's map says what they are called there"
            )

    def file(self, pictures: Iterable[Picture]) -> CocoFile:
        """What was kept; raises as :meth:`check`."""
        self.check()
        kept = tuple(self._annotations)
        return CocoFile(self._path, self._called(), tuple(pictures), kept, self._foreign, self._empty)

    def _called(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._renamed.get(name, name) for name in self._categories))


def clipped(box: Box, picture: Picture, what: str) -> Box:
    """An xyxy box clipped to its picture; it may have no area.

    Raises:
        DataError: it is partly outside, by more than annotation tools overshoot; ``what`` names it.
    """
    x1, y1, x2, y2 = box
    beyond = max(-x1, -y1, x2 - picture.width, y2 - picture.height)
    if beyond > _OUTSIDE_TOLERANCE_PX and x2 > x1 and y2 > y1:
        raise DataError(
            f"{what} leaves its picture of {picture.width}x{picture.height} by {beyond:.0f} pixels"
        )
    return max(0.0, x1), max(0.0, y1), min(x2, picture.width), min(y2, picture.height)
