"""Annotated pictures from COCO JSON files, checked once when they are read.

Categories are matched to the model's classes by name. Boxes of other categories and boxes without area
are left out and counted; whatever else is wrong in a file is refused with the file, the entry's id, the
key and its value. Knows nothing of tensors, models or augmentation.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from models.annotated import Annotation, Box, CocoFile, Picture, Selection, clipped
from models.errors import DataError
from models.problems import Problems

log = logging.getLogger(__name__)

_LARGEST = 1e9
"""No coordinate or area of a picture comes near; NaN, infinities and absurd integers are not below it."""

_SINGULAR = {"images": "image", "annotations": "annotation", "categories": "category"}


@dataclass(frozen=True, slots=True)
class Example:
    """One picture and what is known of it. Boxes are xyxy in source pixels."""

    image_id: int
    path: Path
    width: int
    height: int
    boxes: npt.NDArray[np.float32]
    """float32 (N, 4)."""
    classes: npt.NDArray[np.int64]
    """int64 (N,), indices into the model's names."""
    crowds: npt.NDArray[np.float32]
    """float32 (K, 4): areas with uncounted objects, where a detection is neither right nor wrong."""
    partial: bool
    """Objects without a box may be anywhere in this picture."""
    proposals: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    """float32 (R, 4), best first: where the host proposes that objects may be, if it was asked to."""
    kept: npt.NDArray[np.uint8] | None = None
    """What :meth:`read` returns, where it was read before."""

    def read(self) -> npt.NDArray[np.uint8]:
        """The picture, uint8 RGB (height, width, 3), turned as its annotations see it.

        Raises:
            DataError: the file cannot be decoded or has another size than its annotations say.
        """
        if self.kept is not None:
            return self.kept
        bgr = cv2.imread(str(self.path), cv2.IMREAD_COLOR)
        if bgr is not None and bgr.shape[:2] == (self.width, self.height) and self.width != self.height:
            # OpenCV turns a photograph as its EXIF rotation says; many annotation tools do not.
            bgr = cv2.imread(str(self.path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if bgr is None:
            raise DataError(
                f"{self.path}: not a readable picture; replace it or remove it from the annotations"
            )
        if bgr.shape[:2] != (self.height, self.width):
            raise DataError(
                f"{self.path}: is {bgr.shape[1]}x{bgr.shape[0]}, its annotations say {self.width}x{self.height}"
            )
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def load_coco(
    annotations: Path, images: Path, names: Sequence[str], partial: bool = False, extend_top: float = 0.0
) -> list[Example]:
    """Every picture of a COCO JSON file, those without a box of ``names`` included.

    Args:
        annotations: the JSON file.
        images: the folder its ``file_name`` entries are in.
        names: the model's classes.
        partial: not every object of these pictures has a box.
        extend_top: grow every box upwards by this part of its height, to the picture's border at most.

    Raises:
        DataError: not COCO JSON, a missing picture, a bad entry, or no category among ``names``.
    """
    return examples_of(read_coco(annotations, names), images, partial, extend_top)


def examples_of(
    file: CocoFile, images: Path, partial: bool = False, extend_top: float = 0.0
) -> list[Example]:
    """As :func:`load_coco`, from a file that was read; logs what is left out.

    Raises:
        DataError: a missing picture.
    """
    if file.foreign or file.empty:
        log.log(
            logging.WARNING if file.empty else logging.INFO,
            "%s: leaves out %d boxes of other categories and %d boxes without area",
            file.path,
            file.foreign,
            file.empty,
        )
    of_picture: dict[int, list[Annotation]] = {picture.image_id: [] for picture in file.pictures}
    for annotation in file.annotations:
        of_picture[annotation.image_id].append(annotation)
    examples = [
        _example(picture, _existing(images / picture.file_name, file.path, picture.image_id), found, partial)
        for picture, found in zip(file.pictures, of_picture.values(), strict=True)
    ]
    for example in examples:
        height = example.boxes[:, 3] - example.boxes[:, 1]
        example.boxes[:, 1] = np.maximum(0, example.boxes[:, 1] - extend_top * height)
    return examples


def with_pictures(file: CocoFile, images: Path, problems: Problems) -> CocoFile:
    """The file without those pictures that are not there, and without their boxes.

    Raises:
        DataError: there are such pictures, and ``problems`` are not to be left out.
    """
    there = []
    for picture in file.pictures:
        with problems.entry():
            _existing(images / picture.file_name, file.path, picture.image_id)
            there.append(picture)
    problems.settle(file.path)
    ids = {picture.image_id for picture in there}
    boxes = tuple(annotation for annotation in file.annotations if annotation.image_id in ids)
    return replace(file, pictures=tuple(there), annotations=boxes)


def read_coco(
    path: Path,
    names: Sequence[str],
    problems: Problems | None = None,
    renamed: Mapping[str, str] | None = None,
) -> CocoFile:
    """A COCO JSON file; every entry is checked, but not whether its pictures are there.

    Args:
        path: the file.
        names: the model's classes.
        problems: takes what is wrong with single entries.
        renamed: what its categories are called in ``names``, where that is something else.

    Raises:
        DataError: not COCO JSON, bad entries (all of them are named), or no category among ``names``.
    """
    problems = problems or Problems()
    document = read_document(path)
    pictures = _pictures(document, path, problems)
    categories = categories_of(document, path)
    selection = Selection(path, names, renamed, categories.values())
    selection.check()
    for where, entry in _entries(document, "annotations", path):
        with problems.entry():
            picture = pictures.get(_whole(entry, "image_id", where))
            if picture is None:
                raise DataError(f"{where}: image_id {entry['image_id']} is not among the images")
            category = categories.get(_whole(entry, "category_id", where))
            if category is None:
                raise DataError(f"{where}: category_id {entry['category_id']} is not among the categories")
            class_ = selection.class_of(category)
            if class_ is not None:
                selection.add(_annotation(entry, picture, class_, where))
    problems.settle(path)
    return selection.file(pictures.values())


def _example(picture: Picture, path: Path, found: list[Annotation], partial: bool) -> Example:
    counted = [annotation for annotation in found if not annotation.crowd]
    crowds = [annotation.box for annotation in found if annotation.crowd]
    return Example(
        image_id=picture.image_id,
        path=path,
        width=picture.width,
        height=picture.height,
        boxes=np.array([annotation.box for annotation in counted], np.float32).reshape(-1, 4),
        classes=np.array([annotation.class_ for annotation in counted], np.int64),
        crowds=np.array(crowds, np.float32).reshape(-1, 4),
        partial=partial,
    )


def _existing(path: Path, annotations: Path, image_id: int) -> Path:
    if not path.is_file():
        raise DataError(f"{annotations}: image {image_id}: no picture {path}; check the images folder")
    return path


def read_document(path: Path) -> dict[str, Any]:
    """A JSON object with the three lists of a COCO file, of which nothing else is checked.

    Raises:
        DataError: not COCO JSON.
    """
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a COCO JSON file") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); expected a COCO JSON file") from error
    for key in _SINGULAR:
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise DataError(f"{path}: has no list {key!r}; expected a COCO JSON file")
    return dict(document)


def _pictures(document: dict[str, Any], path: Path, problems: Problems) -> dict[int, Picture]:
    pictures: dict[int, Picture] = {}
    for where, entry in _entries(document, "images", path):
        with problems.entry():
            image_id = _whole(entry, "id", where)
            if image_id in pictures:
                raise DataError(f"{where}: two images have the same id; ids must be unique")
            width, height = _whole(entry, "width", where), _whole(entry, "height", where)
            if width < 1 or height < 1:
                raise DataError(f"{where}: width and height are {width} and {height}, expected at least 1")
            pictures[image_id] = Picture(image_id, _text(entry, "file_name", where), width, height)
    if not document["images"]:
        raise DataError(f"{path}: its list of images is empty; there is nothing to learn or measure")
    return pictures


def categories_of(document: dict[str, Any], path: Path) -> dict[int, str]:
    """The names of a document's categories by their ids.

    Raises:
        DataError: two have the same id, or one has no name.
    """
    categories: dict[int, str] = {}
    for where, entry in _entries(document, "categories", path):
        category_id = _whole(entry, "id", where)
        if category_id in categories:
            raise DataError(f"{where}: two categories have the same id; ids must be unique")
        categories[category_id] = _text(entry, "name", where)
    return categories


def _annotation(entry: dict[str, Any], picture: Picture, class_: int, where: str) -> Annotation | None:
    """A checked annotation; None where its box has no area."""
    crowd = 0 if entry.get("iscrowd") is None else entry["iscrowd"]
    if crowd not in (0, 1):
        raise DataError(f"{where}: iscrowd is {crowd!r:.80}, expected 0 or 1")
    area = entry.get("area")
    if area is not None and not (_is_number(area) and area >= 0):
        raise DataError(f"{where}: area is {area!r:.80}, expected a number of square pixels")
    box = _clipped_box(entry.get("bbox"), picture, where)
    box_area = (box[2] - box[0]) * (box[3] - box[1])
    if box[2] <= box[0] or box[3] <= box[1]:
        return None
    return Annotation(picture.image_id, class_, box, box_area if area is None else float(area), bool(crowd))


def _clipped_box(bbox: object, picture: Picture, where: str) -> Box:
    """``bbox`` (x, y, width, height) as xyxy, clipped to its picture; it may have no area."""
    if not (isinstance(bbox, list) and len(bbox) == 4 and all(map(_is_number, bbox))):
        raise DataError(f"{where}: bbox is {bbox!r:.80}, expected four finite numbers: x, y, width, height")
    x, y, width, height = map(float, bbox)
    if width < 0 or height < 0:
        raise DataError(f"{where}: bbox {bbox} has a negative size, expected x, y, width, height")
    return clipped((x, y, x + width, y + height), picture, f"{where}: bbox {bbox}")


def _entries(document: dict[str, Any], key: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of one of the lists, each with the words that name it in an error."""
    for position, entry in enumerate(document[key]):
        if not isinstance(entry, dict):
            raise DataError(f"{path}: {key}[{position}] is {entry!r:.80}, expected an object")
        name = f"{_SINGULAR[key]} {entry['id']!r:.80}" if "id" in entry else f"{key}[{position}]"
        yield f"{path}: {name}", entry


def _whole(entry: dict[str, Any], key: str, where: str) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(f"{where}: {key} is {value!r:.80}, expected a whole number")
    return value


def _text(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise DataError(f"{where}: {key} is {value!r:.80}, expected text")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST < value < _LARGEST
