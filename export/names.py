"""Class names of strangers' models: as given, as in the file, or COCO's where their number says so."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path

from export.coco import COCO_NAMES
from export.signature import AdaptError

_KEYS = ("names", "class_names", "classes", "labels")


def class_names(path: Path, names: tuple[str, ...] | None, count: int) -> tuple[str, ...]:
    """The names of a model's ``count`` classes: those given, or COCO's for 80.

    Raises:
        AdaptError: another number of names than of classes, or none and not 80 classes.
    """
    if names is None and count == len(COCO_NAMES):
        return COCO_NAMES
    if names is None:
        raise AdaptError(
            f"{path}: the model has {count} classes and no names; export it first: "
            f"lookout export {path} --names a,b,c --out {path.stem}-lookout.onnx"
        )
    if len(names) != count:
        raise AdaptError(f"{path}: --names gives {len(names)} names, the model has {count} classes")
    return names


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
