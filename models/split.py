"""Holding pictures out of training data to measure by. Knows nothing of models or recipes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath
from zlib import crc32

from models.annotated import CocoFile

_ALL = 2**32
_MILLISECONDS = re.compile(r"1[0-9]{12}")
"""A time after 2001, as a file's name."""
_MINUTE_MS = 60_000


def hold_out(file: CocoFile, share: float) -> tuple[CocoFile, CocoFile]:
    """The pictures to learn from, and about ``share`` of them (0 to 1) to measure by, with their boxes.

    Which a picture is among depends on its name alone, so that more pictures change nothing for those that were there.
    Pictures of one minute of a camera stay together, as ``lookout collect`` names them: a model that learned from one
    of them knows the others nearly as well.
    """
    held = {
        picture.image_id for picture in file.pictures if crc32(_together(picture.file_name)) < share * _ALL
    }
    learn, measure = (
        replace(
            file,
            pictures=tuple(picture for picture in file.pictures if (picture.image_id in held) == wanted),
            annotations=tuple(each for each in file.annotations if (each.image_id in held) == wanted),
        )
        for wanted in (False, True)
    )
    return learn, measure


def _together(name: str) -> bytes:
    """What pictures have in common that are to be on one side."""
    stem = PurePath(name).stem
    return str(int(stem) // _MINUTE_MS).encode() if _MILLISECONDS.fullmatch(stem) else name.encode()


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
