"""Annotated pictures from COCO JSON files, checked once when they are read.

Categories are matched to the model's classes by name; others are left out. What is wrong in a file
is refused with the file and the annotation's id. Knows nothing of tensors, models or augmentation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from models.errors import DataError

_OUTSIDE_TOLERANCE_PX = 4.0
"""Annotation tools overshoot the border a little; boxes are clipped if it is no more than this."""


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

    def read(self) -> npt.NDArray[np.uint8]:
        """The picture, uint8 RGB (height, width, 3).

        Raises:
            DataError: the file cannot be decoded or has another size than its annotations say.
        """
        bgr = cv2.imread(str(self.path), cv2.IMREAD_COLOR)
        if bgr is None:
            raise DataError(
                f"{self.path}: not a readable picture; replace it or remove it from the annotations"
            )
        if bgr.shape[:2] != (self.height, self.width):
            raise DataError(
                f"{self.path}: is {bgr.shape[1]}x{bgr.shape[0]}, its annotations say {self.width}x{self.height}"
            )
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


@dataclass(frozen=True, slots=True)
class Annotation:
    """One checked box of a class the model has."""

    image_id: int
    class_: int
    box: tuple[float, float, float, float]
    """xyxy in source pixels, inside the picture."""
    area: float
    """Square pixels of the object where the file says so, else of the box."""
    crowd: bool


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
        DataError: not COCO JSON, a missing picture, a bad annotation, or no category among ``names``.
    """
    document = read_document(annotations)
    of_image: dict[int, list[Annotation]] = {image["id"]: [] for image in document["images"]}
    for annotation in checked_annotations(document, names, annotations):
        of_image[annotation.image_id].append(annotation)
    examples = [
        _example(image, _existing(images / image["file_name"], annotations, image["id"]), found, partial)
        for image, found in zip(document["images"], of_image.values(), strict=True)
    ]
    for example in examples:
        height = example.boxes[:, 3] - example.boxes[:, 1]
        example.boxes[:, 1] = np.maximum(0, example.boxes[:, 1] - extend_top * height)
    return examples


def _example(image: dict[str, Any], path: Path, found: list[Annotation], partial: bool) -> Example:
    counted = [annotation for annotation in found if not annotation.crowd]
    crowds = [annotation.box for annotation in found if annotation.crowd]
    return Example(
        image_id=image["id"],
        path=path,
        width=image["width"],
        height=image["height"],
        boxes=np.array([annotation.box for annotation in counted], np.float32).reshape(-1, 4),
        classes=np.array([annotation.class_ for annotation in counted], np.int64),
        crowds=np.array(crowds, np.float32).reshape(-1, 4),
        partial=partial,
    )


def checked_annotations(document: dict[str, Any], names: Sequence[str], path: Path) -> Iterator[Annotation]:
    """The boxes of ``names`` in a document read from ``path``; every annotation is checked.

    Raises:
        DataError: names the file and the annotation.
    """
    classes = _class_of_category(document, names, path)
    images = {image["id"]: image for image in document["images"]}
    for annotation in document["annotations"]:
        where = f"{path}: annotation {annotation.get('id', 'without id')}"
        image = images.get(annotation.get("image_id"))
        if image is None:
            raise DataError(f"{where}: image_id {annotation.get('image_id')!r} is not among the images")
        category = annotation.get("category_id")
        if category not in classes:
            raise DataError(f"{where}: category_id {category!r} is not among the categories")
        box = _checked_box(annotation.get("bbox"), image, where)
        class_ = classes[category]
        if class_ is not None:
            area = float(annotation.get("area", (box[2] - box[0]) * (box[3] - box[1])))
            yield Annotation(image["id"], class_, box, area, bool(annotation.get("iscrowd", 0)))


def read_document(annotations: Path) -> dict[str, Any]:
    """A COCO document whose three lists are there and whose images are complete and have unique ids.

    Raises:
        DataError: missing file, not JSON, not COCO.
    """
    try:
        document: Any = json.loads(annotations.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{annotations}: cannot be read ({error.strerror}); expected a COCO JSON file"
        ) from error
    except ValueError as error:
        raise DataError(f"{annotations}: not JSON ({error}); expected a COCO JSON file") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise DataError(f"{annotations}: has no list {key!r}; expected a COCO JSON file")
    for image in document["images"]:
        if not isinstance(image.get("file_name"), str) or not all(
            isinstance(image.get(key), int) for key in ("id", "width", "height")
        ):
            raise DataError(
                f"{annotations}: image {image.get('id', 'without id')} needs id, file_name, width and height"
            )
    if len({image["id"] for image in document["images"]}) < len(document["images"]):
        raise DataError(f"{annotations}: two images have the same id; ids must be unique")
    return dict(document)


def _class_of_category(
    document: dict[str, Any], names: Sequence[str], annotations: Path
) -> dict[int, int | None]:
    """The class index of every category id; ``None`` for those the model does not have."""
    index = {name: position for position, name in enumerate(names)}
    classes = {category["id"]: index.get(category["name"]) for category in document["categories"]}
    if all(position is None for position in classes.values()):
        found = ", ".join(category["name"] for category in document["categories"][:10])
        raise DataError(f"{annotations}: none of its categories ({found}) is among {', '.join(names)}")
    return classes


def _checked_box(bbox: object, image: dict[str, Any], where: str) -> tuple[float, float, float, float]:
    """``bbox`` (x, y, width, height) as xyxy, clipped to its picture."""
    if not (
        isinstance(bbox, list)
        and len(bbox) == 4
        and all(isinstance(value, int | float) and math.isfinite(value) for value in bbox)
    ):
        raise DataError(f"{where}: bbox is {bbox!r}, expected four finite numbers: x, y, width, height")
    x, y, width, height = bbox
    if width <= 0 or height <= 0:
        raise DataError(f"{where}: bbox {bbox} has no area; remove it")
    beyond = max(-x, -y, x + width - image["width"], y + height - image["height"])
    if beyond > _OUTSIDE_TOLERANCE_PX:
        raise DataError(
            f"{where}: bbox {bbox} leaves its picture of {image['width']}x{image['height']} by {beyond:.0f} pixels"
        )
    right, bottom = min(x + width, image["width"]), min(y + height, image["height"])
    return max(0.0, x), max(0.0, y), right, bottom


def _existing(path: Path, annotations: Path, image_id: int) -> Path:
    if not path.is_file():
        raise DataError(f"{annotations}: image {image_id}: no picture {path}; check the images folder")
    return path
