"""Annotated pictures from YOLO's text files, one a picture: ``class cx cy width height`` a line.

The numbers are parts of the picture. A line with more of them is a polygon, ``class x1 y1 x2 y2 ...``, of which the
box around it is taken. A picture without a text file has no object, as this format has it. Classes are numbers; what
they are called stands in a YAML file with ``names`` (``data.yaml``), or one a line in ``classes.txt`` or
``obj.names``, beside the text files or above. File and line name whatever is wrong.

Knows nothing of tensors, models or augmentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from models.annotated import Annotation, Box, CocoFile, Picture, Selection
from models.errors import DataError
from models.problems import Problems

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_LISTS = ("classes.txt", "obj.names")
_DATASET_KEYS = {"train", "val", "nc", "path"}
"""A YAML file with ``names`` and one of these describes a data set."""
_UPWARDS = 4
"""Folders in which such a file is looked for, that of the text files the first."""
_EXPECTED = "expected class cx cy width height, in parts of the picture"
_OVER = 0.01
"""So far, in parts of the picture, annotation tools overshoot the border; boxes are clipped."""


def is_yolo(folder: Path) -> bool:
    """Whether the annotations in a folder are such text files."""
    return any(file.name not in _LISTS for file in folder.rglob("*.txt"))


def read_yolo(
    path: Path,
    names: Sequence[str],
    images: Path,
    problems: Problems | None = None,
    renamed: Mapping[str, str] | None = None,
) -> CocoFile:
    """The text files of a folder and those below it, for the pictures that lie in ``images`` in the same way.

    ``renamed`` is what its classes are called in ``names``, where that is something else.

    Raises:
        DataError: text files without their picture, bad lines, classes without a name (all of them are named),
            or none of ``names``.
    """
    problems = problems or Problems()
    called = _called(path)
    selection = Selection(path, names, renamed, called.values())
    selection.check()
    texts = {file.relative_to(path).with_suffix(""): file for file in sorted(path.rglob("*.txt"))}
    pictures = []
    for number, file in enumerate(_pictures(images), start=1):
        text = texts.pop(file.relative_to(images).with_suffix(""), None)
        with problems.entry():
            picture = _picture(file, images, number)
            pictures.append(picture)
            for where, line in [] if text is None else _lines(text):
                with problems.entry():
                    class_, box = _object(where, line, picture)
                    if class_ not in called:
                        known = f"{min(called)} to {max(called)}"
                        raise DataError(f"{where}: class {class_} has no name, expected one of {known}")
                    wanted = selection.class_of(called[class_])
                    if wanted is not None:
                        area = (box[2] - box[0]) * (box[3] - box[1])
                        selection.add(Annotation(number, wanted, box, area, False) if area > 0 else None)
    for name in _LISTS:
        texts.pop(Path(name).with_suffix(""), None)
    for without in texts.values():
        with problems.entry():
            raise DataError(
                f"{without}: its picture is not in {images}; expected {without.stem} with {SUFFIXES}"
            )
    problems.settle(path)
    return selection.file(pictures)


def _called(path: Path) -> dict[int, str]:
    """What the classes are called, by number, from the nearest file that says so."""
    for folder in (path.resolve(), *path.resolve().parents)[:_UPWARDS]:
        for name in _LISTS:
            if (folder / name).is_file():
                lines = (folder / name).read_text(encoding="utf-8").split("\n")
                return {number: line.strip() for number, line in enumerate(lines) if line.strip()}
        for file in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
            names = _named(file)
            if names:
                return names
    raise DataError(
        f"{path}: nothing says what its classes are called; expected data.yaml with names, or classes.txt with "
        "one a line, in it or above"
    )


def _named(file: Path) -> dict[int, str]:
    """``names`` of a YAML file, a list or a mapping from numbers; nothing where it has none."""
    try:
        document = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError):
        return {}  # somebody else's
    if not isinstance(document, dict) or not _DATASET_KEYS & set(document):
        return {}
    names = document.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(key, int) for key in names):
        return {}
    return {key: str(name) for key, name in names.items()}


def _pictures(images: Path) -> Iterator[Path]:
    files = sorted(file for file in images.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"{images}: has no picture in it; expected files such as {', '.join(SUFFIXES)}")
    return iter(files)


def _picture(file: Path, images: Path, number: int) -> Picture:
    try:
        with Image.open(file) as opened:
            width, height = opened.size
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{file}: not a readable picture ({error}); replace it or remove it") from error
    return Picture(number, str(file.relative_to(images)), width, height)


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """The place of each line in words, and the line."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise DataError(f"{file}: cannot be read ({reason}); {_EXPECTED}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield f"{file}: line {number}", line


def _object(where: str, line: str, picture: Picture) -> tuple[int, Box]:
    """The class of a line, and its box, clipped."""
    try:
        class_, *numbers = line.split()
        return int(class_), _box([float(text) for text in numbers], picture)
    except ValueError as error:
        raise DataError(f"{where}: {line!r:.80}: {error}; {_EXPECTED}") from error


def _box(numbers: list[float], picture: Picture) -> Box:
    if len(numbers) == 4:
        cx, cy, width, height = numbers
        if not (width >= 0 and height >= 0):
            raise ValueError("a size below 0")
        xs, ys = [cx - width / 2, cx + width / 2], [cy - height / 2, cy + height / 2]
    elif len(numbers) >= 6 and len(numbers) % 2 == 0:
        xs, ys = numbers[0::2], numbers[1::2]
    else:
        raise ValueError(f"{len(numbers)} numbers after the class")
    if not all(-_OVER <= value <= 1 + _OVER for value in (*xs, *ys)):  # nor where one is not finite
        raise ValueError("reaches out of the picture")
    left, right, top, bottom = (min(max(value, 0.0), 1.0) for value in (min(xs), max(xs), min(ys), max(ys)))
    return left * picture.width, top * picture.height, right * picture.width, bottom * picture.height
