"""The tracker against ground truth: MOTA and IDF1 at IoU 0.5 by motmetrics, one set of parameters.

The floors are a few points below what was measured, so that they fail when tracking gets worse.
"""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import Any

import motmetrics
import numpy as np
import pytest

from stream.frames import Detections
from stream.tracking import Tracker

LEFT_TOP_WIDTH_HEIGHT = slice(2, 6)


def distances(truth: np.ndarray, boxes_xywh: np.ndarray) -> np.ndarray:
    """1 - IoU (N, M); NaN where IoU is below 0.5."""
    a, b = truth[:, None], boxes_xywh[None]
    spans = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.clip(spans, 0, None).prod(axis=-1)
    iou = shared / (a[..., 2:].prod(axis=-1) + b[..., 2:].prod(axis=-1) - shared)
    return np.where(iou >= 0.5, 1 - iou, np.nan)


def score(folder: Path, detections_name: str, stride: int) -> dict[str, float]:
    """MOTA, IDF1 (percent) and identity switches of the frames 1, 1 + stride, ..."""
    ini = configparser.ConfigParser()
    ini.read(folder / "seqinfo.ini")
    fps, length = float(ini["Sequence"]["frameRate"]), int(ini["Sequence"]["seqLength"])
    truth = np.loadtxt(folder / "gt.txt", delimiter=",")
    found = np.loadtxt(folder / f"{detections_name}.txt", delimiter=",")
    tracker, events = Tracker(), motmetrics.MOTAccumulator(auto_id=True)
    for frame in range(1, length + 1, stride):
        rows = found[found[:, 0] == frame]
        boxes = rows[:, LEFT_TOP_WIDTH_HEIGHT].copy()
        boxes[:, 2:] += boxes[:, :2]
        detections = Detections(
            boxes.astype(np.float32), rows[:, 6].astype(np.float32), np.zeros(len(rows), np.int64)
        )
        tracks = tracker.update(detections, frame / fps)
        shown = tracks.boxes[~tracks.coasting].astype(float)
        shown[:, 2:] -= shown[:, :2]
        real = truth[(truth[:, 0] == frame) & (truth[:, 6] > 0)]
        events.update(
            real[:, 1].astype(int),
            tracks.ids[~tracks.coasting],
            distances(real[:, LEFT_TOP_WIDTH_HEIGHT], shown),
        )
    summary: Any = motmetrics.metrics.create().compute(events, metrics=["mota", "idf1", "num_switches"])
    mota, idf1, switches = summary.iloc[0]
    return {"MOTA": 100 * mota, "IDF1": 100 * idf1, "IDSW": switches}


@pytest.mark.parametrize(
    ("sequence", "detections_name", "stride", "least_mota", "least_idf1"),
    [
        ("PETS09-S2L1", "yolox_nano_det", 1, 78, 70),
        ("PETS09-S2L1", "yolox_nano_det", 3, 75, 75),
        ("PETS09-S2L1", "det", 1, 63, 56),
        ("TUD-Campus", "yolox_nano_det", 1, 66, 75),
        ("TUD-Campus", "det", 1, 58, 70),
    ],
)
def test_tracks_agree_with_the_truth(
    shared: Path,
    sequence: str,
    detections_name: str,
    stride: int,
    least_mota: float,
    least_idf1: float,
) -> None:
    scores = score(shared / "data" / "mot" / sequence, detections_name, stride)
    print(sequence, detections_name, stride, scores)
    assert scores["MOTA"] >= least_mota
    assert scores["IDF1"] >= least_idf1
