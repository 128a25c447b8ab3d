"""A small real data set: pictures of one bright square or disc each, written as COCO JSON."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

SHAPES = ("square", "disc")


def draw_shapes(folder: Path, count: int, width: int = 128, height: int = 96) -> Path:
    """Write ``count`` pictures and ``annotations.json``; returns the JSON's path."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    images, annotations = [], []
    for number in range(1, count + 1):
        picture = rng.integers(90, 110, (height, width, 3), dtype=np.uint8)
        kind, side = number % 2, int(rng.integers(24, 48))
        left, top = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
        if kind == 0:
            cv2.rectangle(picture, (left, top), (left + side - 1, top + side - 1), (0, 0, 255), -1)
        else:
            centre = (left + side // 2, top + side // 2)
            cv2.circle(picture, centre, side // 2, (0, 255, 0), -1)
        name = f"{number}.png"
        cv2.imwrite(str(folder / name), picture)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        annotations.append(
            {"id": number, "image_id": number, "category_id": kind + 1, "bbox": [left, top, side, side]}
        )
    categories = [{"id": 1, "name": SHAPES[0]}, {"id": 2, "name": SHAPES[1]}]
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """Eight pictures of 128x96."""
    return draw_shapes(tmp_path / "shapes", 8)
