"""Other trackers on the same detections: a program of its own, for an interpreter that has them.

    python tracker_peers.py FOLDER

Reads every ``N.npz`` of the folder (frames a second, times, and of each detection its frame, box and score), writes
what each tracker makes of it to ``N-NAME.npz``, and prints their names. Each has its own defaults, and is told the
frame rate and the times where it can be. Needs NumPy and the trackers, nothing of lookout.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

Follow = Callable[[Any, Any, float], "tuple[Any, Any]"]
"""Boxes (N, 4), scores (N,) and a time in seconds to ids (M,) and boxes (M, 4)."""


def available() -> Iterator[tuple[str, Callable[[float], Follow]]]:
    """Name and, for a frame rate, a new tracker."""
    try:
        trackers, supervision = import_module("trackers"), import_module("supervision")
    except ModuleNotFoundError:
        pass
    else:
        for kind in ("SORT", "ByteTrack", "OCSORT", "CBIoU"):
            if hasattr(trackers, f"{kind}Tracker"):
                yield (
                    f"trackers-{kind.lower()}",
                    _of_trackers(getattr(trackers, f"{kind}Tracker"), supervision),
                )
    try:
        norfair = import_module("norfair")
    except ModuleNotFoundError:
        return
    yield "norfair", _of_norfair(norfair)


def _of_trackers(kind: Any, supervision: Any) -> Callable[[float], Follow]:
    def new(fps: float) -> Follow:
        tracker = kind(frame_rate=fps)

        def follow(boxes: Any, scores: Any, time_s: float) -> tuple[Any, Any]:
            labels = np.zeros(len(boxes), int)
            seen = supervision.Detections(xyxy=boxes, confidence=scores, class_id=labels)
            told = tracker.update(seen, timestamp=time_s)
            ids = told.tracker_id
            if ids is None:
                return np.zeros(0, int), np.zeros((0, 4))
            return ids[ids >= 0], told.xyxy[ids >= 0]

        return follow

    return new


def _of_norfair(norfair: Any) -> Callable[[float], Follow]:
    def new(fps: float) -> Follow:
        # As in its own examples with boxes; half a second of patience, as its default has at 30 a second.
        tracker = norfair.Tracker("iou", distance_threshold=0.7, hit_counter_max=max(2, round(fps / 2)))

        def follow(boxes: Any, scores: Any, time_s: float) -> tuple[Any, Any]:
            sure = scores >= 0.4
            seen = [
                norfair.Detection(box.reshape(2, 2), scores=np.repeat(score, 2))
                for box, score in zip(boxes[sure], scores[sure], strict=True)
            ]
            told = [each for each in tracker.update(seen) if each.live_points.any()]
            ids = np.array([each.id for each in told], int)
            return ids, np.array([each.estimate.ravel() for each in told]).reshape(-1, 4)

        return follow

    return new


def main(folder: Path) -> None:
    for name, new in available():
        for job in sorted(folder.glob("[0-9]*.npz")):
            if "-" not in job.stem:
                with np.load(job) as given:
                    np.savez(folder / f"{job.stem}-{name}.npz", **_followed(new, dict(given)))
        print(name, flush=True)


def _followed(new: Callable[[float], Follow], given: dict[str, Any]) -> dict[str, Any]:
    follow, spent = new(float(given["fps"])), []
    frames, ids, boxes = [], [], []
    for frame, time_s in enumerate(given["times"].tolist()):
        these = given["frames"] == frame
        seen, scores = given["boxes"][these], given["scores"][these]
        started = perf_counter()
        own, where = follow(seen, scores, time_s)
        spent.append(1000 * (perf_counter() - started))
        frames.append(np.full(len(own), frame))
        ids.append(np.asarray(own, int))
        boxes.append(np.asarray(where, float).reshape(-1, 4))
    return {
        "frames": np.concatenate(frames),
        "ids": np.concatenate(ids),
        "boxes": np.concatenate(boxes),
        "ms": median(spent),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
