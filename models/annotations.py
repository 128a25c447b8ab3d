"""Annotated pictures, however they are annotated: the one place where the formats part ways.

Knows nothing of what is in the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.coco import CocoFile, Example, examples_of, read_coco
from models.voc import read_voc


def read_annotations(path: Path, names: Sequence[str]) -> CocoFile:
    """A COCO JSON file, a folder of VOC's or ImageNet's XML files, or a VOC list of them (.txt).

    Raises:
        DataError: not what it seems to be, a bad entry, or nothing in it is of ``names``.
    """
    return read_voc(path, names) if path.is_dir() or path.suffix == ".txt" else read_coco(path, names)


def load_annotations(path: Path, images: Path, names: Sequence[str]) -> list[Example]:
    """Every picture of ``path``, those without a box of ``names`` included, found in the folder ``images``.

    Raises:
        DataError: as :func:`read_annotations`, or a missing picture.
    """
    return examples_of(read_annotations(path, names), images)
