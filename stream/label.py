"""``lookout label``: a teacher's boxes for pictures, as COCO JSON to train on, and sheets to look them through.

Joins the live app's detector with the readers and the rules of annotations. Knows nothing of training.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from models.annotated import CocoFile
from models.coco import Example, categories_of, examples_of, read_coco, read_document, with_pictures
from models.errors import DataError
from models.problems import Problems
from models.pseudo_labels import Boxes, LabelFile, Rules, settle
from models.tiles import GREEN, GREY, ORANGE, Mark, page, tile
from stream.detector import Pixels
from stream.errors import SourceBroken, UsageError
from stream.frames import Detections
from stream.sources.images import picture_files, read_rgb
from stream.writers import completed, written

Say = Callable[[str], None]

COLUMNS, ROWS, MOST_PAGES = 6, 8, 12
"""Of the contact sheet."""
_WIDTH, _HEIGHT = 240, 200
_QUALITY = 85
_SHEETS = (".jpg", ".jpeg")


class Teacher(Protocol):
    """What is needed of a detector."""

    def detect_images(self, images: Sequence[Pixels], score_threshold: float) -> list[Detections]: ...


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked for.

    Args:
        names: the classes to label; None takes all of ``add_to``, or all of the teacher's.
        renamed: what classes of the teacher are called in the labels.
        rules: what counts.
        add_to: annotations that stay, and whose pictures are those that are looked at.
    """

    names: tuple[str, ...] | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    add_to: Path | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture to look at, and what people annotated in it."""

    image_id: int
    name: str
    read: Callable[[], Pixels]
    known: Example | None = None


@dataclass(frozen=True, slots=True)
class Labelled:
    """A picture that was looked at."""

    picture: Shown
    sure: Boxes
    unsure: Boxes

    @property
    def doubt(self) -> tuple[int, float]:
        """Orders pictures: the more is left open, then the lower the least sure label, the greater."""
        return len(self.unsure.scores), -float(self.sure.scores.min(initial=1.0))


@dataclass(frozen=True, slots=True)
class Labels:
    """What came of it: the COCO document, its pictures, its classes, and a line on each that could not be read."""

    document: dict[str, Any]
    pictures: list[Labelled]
    names: tuple[str, ...]
    unread: list[str]

    def __str__(self) -> str:
        counts = Counter(
            self.names[class_] for each in self.pictures for class_ in each.sure.classes.tolist()
        )
        boxes = ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"
        unsure = sum(len(each.unsure.scores) for each in self.pictures)
        return f"{len(self.pictures)} pictures: {counts.total()} boxes ({boxes}), {unsure} regions left open"


def rules(sure: float, unsure: float, shortest_px: float) -> Rules:
    """Checked.

    Raises:
        UsageError: they cannot be.
    """
    if not 0 < unsure <= sure <= 1 or not shortest_px >= 0:
        raise UsageError(
            f"--sure {sure:g}, --unsure {unsure:g}, --min-size {shortest_px:g}: expected scores from above 0 to 1, "
            "the unsure one not the higher, and a size from 0"
        )
    return Rules(sure, unsure, shortest_px)


def label_to_files(
    pictures: Path,
    teacher: Teacher,
    teachers_names: Sequence[str],
    wishes: Wishes,
    out: Path,
    sheet: Path | None,
    say: Say,
) -> None:
    """As :func:`label`, into a JSON file and, where one is wanted, a contact sheet.

    Raises:
        UsageError, DataError, NoVideo: as :func:`label`, or a file cannot be written or would overwrite what is read.
    """
    _refuse_overwriting(pictures, wishes.add_to, out, sheet)
    with completed(out, keep=False) as partial:
        labels = label(pictures, teacher, teachers_names, wishes)
        with written(str(out)):
            partial.write_text(json.dumps(labels.document, ensure_ascii=False) + "\n", encoding="utf-8")
    for line in labels.unread:
        say(line)
    say(f"{labels}; {len(labels.unread)} could not be read" if labels.unread else str(labels))
    if sheet is not None:
        say(f"look at: {', '.join(map(str, draw_sheets(labels, sheet)))}")


def label(pictures: Path, teacher: Teacher, teachers_names: Sequence[str], wishes: Wishes) -> Labels:
    """What a teacher finds in pictures.

    Args:
        pictures: a folder, a pattern or a picture; of ``wishes.add_to`` the folder of its pictures.
        teacher: the model, whose classes are ``teachers_names``.
        teachers_names: in the order of its classes.
        wishes: what is to become of it.

    Raises:
        UsageError: a name that the teacher does not have.
        DataError: ``add_to`` is wrong, or no picture can be read.
        NoVideo: there are no pictures.
    """
    if wishes.add_to is None:
        names = wishes.names or tuple(dict.fromkeys(_called(teachers_names, wishes)))
        document: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
        shown = _found(pictures)
    else:
        document = read_document(wishes.add_to)
        categories = tuple(dict.fromkeys(categories_of(document, wishes.add_to).values()))
        names = wishes.names or _common(categories, teachers_names, wishes)
        shown = _listed(read_coco(wishes.add_to, tuple(dict.fromkeys((*names, *categories)))), pictures)
    classes = translation(teachers_names, names, wishes)
    unread: list[str] = []
    labels = Labels(document, [], names, unread)
    target = LabelFile(document, names)
    for picture in track(shown, "labelling", console=Console(stderr=True), transient=True):
        try:
            rgb = picture.read()
        except (SourceBroken, DataError) as error:
            unread.append(str(error))
            continue
        (found,) = teacher.detect_images([rgb], wishes.rules.unsure)
        translated = Boxes(found.boxes, found.scores, classes[found.classes])
        labelled = Labelled(picture, *settle(translated, picture.known, wishes.rules))
        if picture.known is None:
            target.picture(picture.image_id, picture.name, rgb.shape[1], rgb.shape[0])
        target.boxes(picture.image_id, labelled.sure, crowd=False)
        target.boxes(picture.image_id, labelled.unsure, crowd=True)
        labels.pictures.append(labelled)
    if not labels.pictures:
        raise DataError("\n".join([*unread[:20], f"{pictures}: none of its pictures can be read"]))
    return labels


def translation(teachers_names: Sequence[str], names: Sequence[str], wishes: Wishes) -> Any:
    """int64 (T,): which of ``names`` each of the teacher's classes is, -1 for none.

    Raises:
        UsageError: the teacher has nothing of that name.
    """
    called = _called(teachers_names, wishes)
    for name in names:
        if name not in called:
            raise _unknown("--names", name, teachers_names)
    index = {name: position for position, name in enumerate(names)}
    return np.array([index.get(name, -1) for name in called], np.int64)


def _called(teachers_names: Sequence[str], wishes: Wishes) -> list[str]:
    """What the teacher's classes are called in the labels."""
    for old, new in wishes.renamed.items():
        if old not in teachers_names:
            raise _unknown("--map", old, teachers_names)
        if wishes.names is not None and new not in wishes.names:
            raise UsageError(f"--map {old}={new}: {new} is not among --names ({', '.join(wishes.names)})")
    return [wishes.renamed.get(name, name) for name in teachers_names]


def _unknown(option: str, name: str, teachers_names: Sequence[str]) -> UsageError:
    return UsageError(
        f"{option}: the teacher has no class {name}; expected some of its own, or --map ITS-NAME={name}: "
        f"{', '.join(teachers_names)}"
    )


def _found(pictures: Path) -> list[Shown]:
    """Every picture of a folder or pattern."""
    root, files = picture_files(pictures)

    def shown(number: int, file: Path) -> Shown:
        return Shown(number, file.relative_to(root).as_posix(), lambda: read_rgb(file))

    return [shown(number, file) for number, file in enumerate(files, start=1)]


def _common(categories: Sequence[str], teachers_names: Sequence[str], wishes: Wishes) -> tuple[str, ...]:
    """Those of a file's categories that the teacher has."""
    called = _called(teachers_names, wishes)
    names = tuple(name for name in categories if name in called)
    if not names:
        raise _unknown(f"--add-to {wishes.add_to}", " or ".join(categories), teachers_names)
    return names


def _listed(file: CocoFile, folder: Path) -> list[Shown]:
    """The pictures of a file that are there; the others are warned of."""
    there = with_pictures(file, folder, Problems(skip=True))
    return [
        Shown(picture.image_id, picture.file_name, example.read, example)
        for picture, example in zip(there.pictures, examples_of(there, folder), strict=True)
    ]


def draw_sheets(labels: Labels, sheet: Path) -> list[Path]:
    """Contact sheets, the least sure pictures first: labels in orange, open regions dashed, what people drew in green.

    Returns:
        The files: ``sheet``, then ``NAME-2.jpg`` and so on, at most ``MOST_PAGES``.
    """
    ordered = sorted(labels.pictures, key=lambda each: each.doubt, reverse=True)
    files: list[Path] = []
    for start in range(0, min(len(ordered), MOST_PAGES * COLUMNS * ROWS), COLUMNS * ROWS):
        file = sheet.with_name(f"{sheet.stem}-{len(files) + 1}{sheet.suffix}") if files else sheet
        tiles = [
            tile(each.picture.read(), _marks(each, labels.names), _WIDTH, _HEIGHT, each.picture.name)
            for each in ordered[start : start + COLUMNS * ROWS]
        ]
        with completed(file, keep=False) as partial, written(str(file)):
            quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
            partial.write_bytes(cv2.imencode(file.suffix, page(tiles, COLUMNS), quality)[1].tobytes())
        files.append(file)
    return files


def _marks(labelled: Labelled, names: Sequence[str]) -> list[Mark]:
    known, sure, unsure = labelled.picture.known, labelled.sure, labelled.unsure
    marks = [] if known is None else [Mark(box, GREEN) for box in known.boxes]
    marks += [Mark(box, GREY, dashed=True) for box in unsure.boxes]
    for box, score, class_ in zip(sure.boxes, sure.scores, sure.classes, strict=True):
        called = f"{names[class_]} " if len(names) > 1 else ""
        marks.append(Mark(box, ORANGE, f"{called}{score:.2f}"))
    return marks


def _refuse_overwriting(pictures: Path, add_to: Path | None, out: Path, sheet: Path | None) -> None:
    if add_to is not None and out.resolve() == add_to.resolve():
        raise UsageError(
            f"--out {out}: would replace the annotations that are added to; give it another name"
        )
    if sheet is None:
        return
    folder = pictures if pictures.is_dir() else pictures.parent
    if sheet.suffix.lower() not in _SHEETS or not sheet.parent.is_dir():
        raise UsageError(f"--sheet {sheet}: expected a {' or '.join(_SHEETS)} file in a folder that is there")
    if sheet.resolve().parent == folder.resolve():
        raise UsageError(
            f"--sheet {sheet}: lies among the pictures, and would be one; put it into another folder"
        )
