"""Does anything grow while the detector is slower than its cameras? Nothing may but the drop counter.

Four cameras at 60 frames a second ask one detector for more than it can do; one of them is watched.
Once a second the age of the newest frame (capture to tracks), of the newest picture encoded, and the
process's memory are noted; what is reported is how they change over the run.
"""

from __future__ import annotations

from statistics import median
from time import monotonic, sleep
from typing import Any

import numpy as np
import psutil

from stream.bench.drain import Drain, watched
from stream.config import AppConfig, CameraConfig
from stream.detector import Detector
from stream.pipeline import Pipeline
from stream.webrtc.rendition import Rendition

CAMERAS, SOURCE, CAMERA_FPS = 4, "synthetic:640x360@60", 60
WARM_UP_S = 10.0


def run(model: str, seconds: float = 600.0) -> dict[str, Any]:
    """Overload one detector for ``seconds`` after a warm-up.

    Returns:
        ``age_ms_first`` and ``age_ms_last``: median age in the first and last fifth; ``..._per_minute``:
        slopes of a straight line through all samples; ``asked_fps`` over ``detected_fps``: the overload.
    """
    detector = Detector(model, device="cpu", threads=1)
    cameras = {f"camera{number}": CameraConfig(source=SOURCE) for number in range(CAMERAS)}
    pipeline = Pipeline(AppConfig(cameras=cameras), detector)
    drain = Drain()
    with watched(pipeline.cameras["camera0"].hub(Rendition("h264")), drain):
        pipeline.start()
        try:
            sleep(min(WARM_UP_S, seconds))
            before, samples = _counts(pipeline), []
            started = monotonic()
            while (elapsed := monotonic() - started) < seconds:
                sleep(min(1.0, seconds - elapsed) or 0.001)
                samples.append(_sample(pipeline, drain, monotonic() - started))
            after = _counts(pipeline)
        finally:
            pipeline.stop()
    decoded, detected, dropped = (late - early for early, late in zip(before, after, strict=True))
    return _figures(np.array(samples), seconds) | {
        "detected_fps": round(detected / seconds, 1),
        "asked_fps": CAMERAS * CAMERA_FPS,
        "decoded": decoded,
        "detected": detected,
        "dropped": dropped,
        "uncounted": decoded - detected - dropped,
    }


def _sample(pipeline: Pipeline, drain: Drain, elapsed_s: float) -> tuple[float, float, float, float]:
    """(elapsed s, age of the newest detection ms, of the newest encoded picture ms, memory MB)."""
    age_ms = median(camera.status().frame_age_ms or 0.0 for camera in pipeline.cameras.values())
    return elapsed_s, age_ms, 1000 * drain.age_s, psutil.Process().memory_info().rss / 1e6


def _counts(pipeline: Pipeline) -> tuple[int, int, int]:
    statuses = [camera.status() for camera in pipeline.cameras.values()]
    return (
        sum(status.decoded for status in statuses),
        sum(status.detected for status in statuses),
        sum(status.dropped for status in statuses),
    )


def _figures(samples: np.ndarray[Any, np.dtype[np.float64]], seconds: float) -> dict[str, Any]:
    fifth = max(1, len(samples) // 5)
    figures: dict[str, Any] = {"seconds": seconds}
    for column, name, unit in ((1, "age", "ms"), (2, "shown_age", "ms"), (3, "memory", "mb")):
        values = samples[:, column]
        figures[f"{name}_{unit}_first"] = round(float(np.median(values[:fifth])), 2)
        figures[f"{name}_{unit}_last"] = round(float(np.median(values[-fifth:])), 2)
        if len(samples) > 1:
            slope = np.polyfit(samples[:, 0] / 60, values, 1)[0]
            figures[f"{name}_{unit}_per_minute"] = round(float(slope), 3)
    return figures
