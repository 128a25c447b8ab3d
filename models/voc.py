"""Annotated pictures from PASCAL VOC's XML files, one a picture, and from ImageNet's, which have the same form.

Corners are whole pixels counted from 1, both of them inside the object: an object of the one pixel at the
top left is 1, 1, 1, 1, and is 0, 0, 1, 1 here. (ImageNet does not say how it counts; a pixel more or less at
the border is clipped.) Objects marked difficult become crowds: a detection there is neither right nor wrong.
Of those marked truncated nothing else is made. The file, the element and its value name whatever is wrong.

Knows nothing of tensors, models or augmentation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from models.annotated import Annotation, Box, CocoFile, Picture, Selection, clipped
from models.errors import DataError
from models.problems import Problems
from models.synsets import read_synsets

_EXPECTED = "expected a folder of VOC's XML files, or a list of them such as ImageSets/Main/train.txt"
_IMAGENET_SUFFIX = ".JPEG"
"""ImageNet's files name their pictures without it, some of them only ``%s``."""


def read_voc(
    path: Path,
    names: Sequence[str],
    problems: Problems | None = None,
    renamed: Mapping[str, str] | None = None,
) -> CocoFile:
    """Every XML file in a folder and those below it, or those of a VOC list.

    Pictures are numbered from 1 in the order of their files; their names are relative to the folder of the
    pictures as the files are to theirs. Where ImageNet's ``LOC_synset_mapping.txt`` lies in or above the
    folder, ``names`` may be words of it instead of synset ids.

    Args:
        path: a folder, or a text file ``ImageSets/*/*.txt`` with one name a line, beside ``Annotations/``.
        names: the model's classes.
        problems: takes what is wrong with single pictures and objects.
        renamed: what its classes are called in ``names``, where that is something else.

    Raises:
        DataError: files are missing or are not such XML (all of them are named), or no object is of a class
            among ``names``.
    """
    problems = problems or Problems()
    synsets = read_synsets(path, names)
    selection = Selection(path, names, renamed)
    pictures: list[Picture] = []
    for number, (file, folder) in enumerate(_files(path), start=1):
        with problems.entry():
            root = _root(file)
            picture = _picture(root, file, folder, number)
            pictures.append(picture)
            for position, element in enumerate(root.findall("object"), start=1):
                with problems.entry():
                    where = f"{file}: object {position}"
                    name = _text(element, "name", where)
                    class_ = selection.class_of(synsets.get(name, name))
                    if class_ is not None:
                        selection.add(_annotation(element, picture, class_, where))
    problems.settle(path)
    return selection.file(pictures)


def _files(path: Path) -> list[tuple[Path, Path]]:
    """The XML files, each with the folder that its picture's name is relative to."""
    if path.is_dir():
        files = [(file, file.parent.relative_to(path)) for file in sorted(path.rglob("*.xml"))]
        if not files:
            raise DataError(f"{path}: has no .xml file in it; {_EXPECTED}")
        return files
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise DataError(f"{path}: cannot be read ({reason}); {_EXPECTED}") from error
    # Lists of one class say after each name whether it is to be seen; all pictures count.
    listed = [line.split()[0] for line in lines if line.strip()]
    if not listed:
        raise DataError(f"{path}: lists nothing; {_EXPECTED}")
    folder = path.resolve().parent.parent.parent / "Annotations"
    return [(folder / f"{name}.xml", Path()) for name in listed]


def _root(file: Path) -> Element:
    try:
        root = ElementTree.parse(file).getroot()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); expected VOC's XML") from error
    except ElementTree.ParseError as error:
        raise DataError(f"{file}: line {error.position[0]}: not XML ({error})") from error
    if root.tag != "annotation":
        raise DataError(f"{file}: its root is <{root.tag}>, expected <annotation> as in VOC's XML")
    return root


def _picture(root: Element, file: Path, folder: Path, number: int) -> Picture:
    where = str(file)
    name = Path(_text(root, "filename", where)).name
    if not Path(name).suffix:
        name = f"{file.stem}{_IMAGENET_SUFFIX}"
    width, height = (_number(root, f"size/{side}", where) for side in ("width", "height"))
    if min(width, height) < 1 or width % 1 or height % 1:
        raise DataError(
            f"{where}: size/width and size/height are {width:g} and {height:g}, expected whole numbers from 1"
        )
    return Picture(number, str(folder / name), int(width), int(height))


def _annotation(element: Element, picture: Picture, class_: int, where: str) -> Annotation | None:
    """A checked annotation; None where nothing of its box is left in the picture."""
    difficult = _flag(element, "difficult", where)
    _flag(element, "truncated", where)
    box = _box(element, picture, where)
    area = (box[2] - box[0]) * (box[3] - box[1])
    if box[2] <= box[0] or box[3] <= box[1]:
        return None
    return Annotation(picture.image_id, class_, box, area, difficult)


def _box(element: Element, picture: Picture, where: str) -> Box:
    left, top, right, bottom = (
        _number(element, f"bndbox/{key}", where) for key in ("xmin", "ymin", "xmax", "ymax")
    )
    said = f"{where}: bndbox {left:g}, {top:g}, {right:g}, {bottom:g}"
    if right < left or bottom < top:
        raise DataError(f"{said} ends before it begins, expected xmin, ymin, xmax, ymax")
    return clipped((left - 1, top - 1, right, bottom), picture, said)


def _text(element: Element, path: str, where: str) -> str:
    text = (element.findtext(path) or "").strip()
    if not text:
        raise DataError(f"{where}: {path} is missing or empty")
    return text


def _number(element: Element, path: str, where: str) -> float:
    text = _text(element, path, where)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) < 1e9:
        raise DataError(f"{where}: {path} is {text!r:.80}, expected a number of pixels")
    return value


def _flag(element: Element, path: str, where: str) -> bool:
    """0 or 1; 0 where it is not given."""
    text = (element.findtext(path) or "0").strip()
    if text not in ("0", "1"):
        raise DataError(f"{where}: {path} is {text!r:.80}, expected 0 or 1")
    return text == "1"
