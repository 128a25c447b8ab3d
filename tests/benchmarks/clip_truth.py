"""Frames of a clip as pictures, and the boxes of people that MOTChallenge has of them, as COCO JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import av
import cv2
import numpy as np

CLASS = "person"


def write_frames(clip: Path, folders: Mapping[int, Path]) -> None:
    """Write frames to their folders, called by their number from 1; pictures of before are removed.

    Args:
        folders: by the number of a frame, from 0.
    """
    for folder in set(folders.values()):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.jpg"):
            old.unlink()
    with av.open(str(clip)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index in folders:
                file = folders[index] / f"{index + 1:06d}.jpg"
                cv2.imwrite(str(file), frame.to_ndarray(format="bgr24"), [cv2.IMWRITE_JPEG_QUALITY, 95])


def write_truth(mot: Path, folder: Path, out: Path) -> int:
    """The true boxes of a folder's frames as COCO JSON, to ``out``; returns how many there are.

    What MOTChallenge says not to count is a crowd.
    """
    images, boxes = {}, []
    for file in sorted(folder.glob("*.jpg")):
        height, width = cv2.imread(str(file)).shape[:2]
        images[int(file.stem)] = {
            "id": int(file.stem),
            "file_name": file.name,
            "width": width,
            "height": height,
        }
    with mot.open(newline="") as opened:
        for frame, _, left, top, width, height, counts, *_ in csv.reader(opened):
            if int(frame) not in images:
                continue
            x, y, w, h = map(float, (left, top, width, height))
            picture = images[int(frame)]
            corners = np.clip([x, y, x + w, y + h], 0, [picture["width"], picture["height"]] * 2).tolist()
            box = [corners[0], corners[1], corners[2] - corners[0], corners[3] - corners[1]]
            if min(box[2:]) > 0:
                crowd = int(float(counts) == 0)
                number = len(boxes) + 1
                boxes.append(
                    {"id": number, "image_id": int(frame), "category_id": 1, "bbox": box, "iscrowd": crowd}
                )
    document = {"images": [*images.values()], "annotations": boxes, "categories": [{"id": 1, "name": CLASS}]}
    out.write_text(json.dumps(document))
    return len(boxes)
