"""Real pictures whose ImageNet classes are known."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.coco import load_coco

_IMAGENET = (range(281, 286), (654, 779, 874))
"""House cats; minibus, school and trolley bus."""


def cats_and_buses(shared: Path) -> list[tuple[npt.NDArray[np.uint8], Container[int]]]:
    """Crops (H, W, 3) RGB of COCO's larger cats and buses, with the classes of ImageNet they may be."""
    annotations = shared / "data" / "coco-mini" / "instances_val.json"
    crops: list[tuple[npt.NDArray[np.uint8], Container[int]]] = []
    for example in load_coco(annotations, annotations.parent / "images", ("cat", "bus")):
        for box, class_ in zip(example.boxes.astype(int), example.classes, strict=True):
            if (box[2] - box[0]) * (box[3] - box[1]) > 12_000:
                crops.append((example.read()[box[1] : box[3], box[0] : box[2]], _IMAGENET[int(class_)]))
    return crops
