"""ImageNet's classes: its annotations name synsets, ``LOC_synset_mapping.txt`` says what they are in words.

A line of it is ``n01440764 tench, Tinca tinca``. Knows nothing of pictures or boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.errors import DataError

MAPPING = "LOC_synset_mapping.txt"


def read_synsets(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Which of ``names`` a synset is, by the mapping in ``path`` or above it; empty where there is none.

    A name is a synset's id, all of its words, or its first; what comes first in this order counts.

    Raises:
        DataError: the mapping has another form, or a name stands for several synsets.
    """
    file = _mapping(path)
    words = {} if file is None else _read(file)
    meant: dict[str, str] = {}
    for name in names:
        by_id = [synset for synset in words if synset == name]
        by_words = [synset for synset, text in words.items() if text == name]
        by_first = [synset for synset, text in words.items() if text.split(",")[0] == name]
        synsets = by_id or by_words or by_first
        if len(synsets) > 1:
            raise DataError(
                f"{file}: {name} is {' and '.join(synsets)}; name the class by the one that is meant"
            )
        meant |= dict.fromkeys(synsets, name)
    return meant


def _mapping(path: Path) -> Path | None:
    files = (folder / MAPPING for folder in (path, *path.resolve().parents))
    return next((file for file in files if file.is_file()), None)


def _read(file: Path) -> dict[str, str]:
    words: dict[str, str] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        synset, _, text = line.strip().partition(" ")
        if synset and not text:
            raise DataError(f"{file}: line {number}: {line!r:.80}, expected a synset's id and its words")
        if synset:
            words[synset] = text.strip()
    return words
