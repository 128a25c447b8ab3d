"""Annotated pictures, however they are annotated: the one place where the formats part ways.

Knows nothing of what is in the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

from models.annotated import Annotation, CocoFile, Picture
from models.coco import Example, examples_of, read_coco
from models.errors import DataError
from models.problems import Problems
from models.voc import read_voc
from models.yolo_txt import SUFFIXES, is_yolo, read_yolo


def read_annotations(
    path: Path,
    images: Path,
    names: Sequence[str],
    problems: Problems | None = None,
    renamed: Mapping[str, str] | None = None,
) -> CocoFile:
    """A COCO JSON file, a folder of VOC's or ImageNet's XML or of YOLO's text files, or a VOC list (.txt).

    Args:
        path: of the annotations.
        images: the folder of the pictures; YOLO's text files do not say how large they are.
        names: the model's classes.
        problems: takes what is wrong with single entries; without, all of it is refused at once.
        renamed: what its classes are called in ``names``, where that is something else.

    Raises:
        DataError: not what it seems to be, a bad entry, or nothing in it is of ``names``.
    """
    if path.is_dir() and is_yolo(path):
        return read_yolo(path, names, images, problems, renamed)
    if path.is_dir() or path.suffix == ".txt":
        return read_voc(path, names, problems, renamed)
    return read_coco(path, names, problems, renamed)


def load_annotations(path: Path, images: Path, names: Sequence[str]) -> list[Example]:
    """Every picture of ``path``, those without a box of ``names`` included, found in the folder ``images``.

    Raises:
        DataError: as :func:`read_annotations`, or a missing picture.
    """
    return examples_of(read_annotations(path, images, names), images)


def unlabelled(images: Path, names: Sequence[str]) -> CocoFile:
    """All pictures in a folder and below, in which nothing is known to be right or wrong.

    Raises:
        DataError: there is none, or one that is not a readable picture.
    """
    files = sorted(file for file in images.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"{images}: has no pictures ({', '.join(SUFFIXES)})")
    pictures = []
    for number, file in enumerate(files, start=1):
        try:
            with Image.open(file) as picture:
                width, height = picture.size
                turned = picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        except (OSError, UnidentifiedImageError) as error:
            raise DataError(f"{file}: not a readable picture ({error}); replace or remove it") from error
        size = (height, width) if turned else (width, height)
        pictures.append(Picture(number, file.relative_to(images).as_posix(), *size))
    everywhere = tuple(
        Annotation(each.image_id, 0, (0.0, 0.0, float(each.width), float(each.height)), 0.0, crowd=True)
        for each in pictures
    )
    return CocoFile(images, tuple(names), tuple(pictures), everywhere, 0, 0)
