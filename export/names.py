"""Class names of strangers' models: as given, as in the file, or COCO's where their number says so."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path

from export.signature import AdaptError
from models.coco_names import COCO_NAMES

_KEYS = ("names", "class_names", "classes", "labels")


def class_names(
    path: Path,
    names: tuple[str, ...] | None,
    count: int,
    *,
    background_first: bool = False,
    naming: str = "",
) -> tuple[str, ...]:
    """The names of a model's ``count`` classes: those given, or COCO's for 80. A count of 0 is unknown.

    Args:
        path: of the model, for errors.
        names: as given by the user or the file.
        count: of the classes, with the background where that is one.
        background_first: whether class 0 is no object; ``names`` may then leave it out.
        naming: how names are given, for errors about their number.

    Raises:
        AdaptError: another number of names than of classes, or none and not 80 classes.
    """
    if background_first and names is not None and _lacks_background(names, count):
        names = ("background", *names)
    if count == 0 and names is not None:
        return names
    if names is None and count == len(COCO_NAMES):
        return COCO_NAMES
    note = f" ({naming})" if naming else ""
    if names is None:
        raise AdaptError(
            f"{path}: the model has {count or 'an unknown number of'} classes and no names{note}; export it "
            f"first: lookout export {path} --names a,b,c --out {path.stem}-lookout.onnx"
        )
    if len(names) != count:
        raise AdaptError(f"{path}: --names gives {len(names)} names, the model has {count} classes{note}")
    return names


def _lacks_background(names: tuple[str, ...], count: int) -> bool:
    return len(names) == count - 1 if count else names[0].strip("_").lower() not in ("background", "n/a")


def names_in(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """Class names that a file carries: a list, or a mapping from index to name, as JSON or Python's literal.

    None where there are none, or where they are not numbered from 0 without gaps.
    """
    for key in _KEYS:
        value = _literal(metadata.get(key, ""))
        if isinstance(value, dict):
            value = {int(index): name for index, name in value.items() if str(index).isdecimal()}
            value = (
                [value[index] for index in range(len(value))]
                if set(value) == set(range(len(value)))
                else None
            )
        if isinstance(value, (list, tuple)) and value and all(isinstance(name, str) for name in value):
            return tuple(value)
    return None


def _literal(text: str) -> object:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return None
