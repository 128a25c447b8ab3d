"""Holding pictures out of training data to measure by. Knows nothing of models or recipes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from zlib import crc32

from models.annotated import CocoFile

_ALL = 2**32


def hold_out(file: CocoFile, share: float) -> tuple[CocoFile, CocoFile]:
    """The pictures to learn from, and about ``share`` of them (0 to 1) to measure by, with their boxes.

    Which a picture is among depends on its name alone, so that more pictures change nothing for those that were there.
    """
    held = {picture.image_id for picture in file.pictures if crc32(picture.file_name.encode()) < share * _ALL}
    learn, measure = (
        replace(
            file,
            pictures=tuple(picture for picture in file.pictures if (picture.image_id in held) == wanted),
            annotations=tuple(each for each in file.annotations if (each.image_id in held) == wanted),
        )
        for wanted in (False, True)
    )
    return learn, measure


def numbered_apart(files: Sequence[CocoFile]) -> list[CocoFile]:
    """The files with other picture numbers: no two of them have the same."""
    apart, first = [], 1
    for file in files:
        new = {picture.image_id: number for number, picture in enumerate(file.pictures, start=first)}
        first += len(new)
        pictures = tuple(replace(picture, image_id=new[picture.image_id]) for picture in file.pictures)
        boxes = tuple(replace(each, image_id=new[each.image_id]) for each in file.annotations)
        apart.append(replace(file, pictures=pictures, annotations=boxes))
    return apart
