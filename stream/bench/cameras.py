"""What more cameras cost: the detector's rate with one to eight of them, and whether each gets its share.

For the cost every camera waits until its frame was taken and then makes the next at once: the detector never waits
for a camera, no frame is made in vain, and what changes with their number is only how many threads and hand-overs
there are. For fairness eight live cameras ask for four times as much as it can do, all at one rate, and then at two.
What is done by how many is measured in turn, several rounds, so that a drift of the machine's speed falls on all.
"""

from __future__ import annotations

from fractions import Fraction
from statistics import median
from time import monotonic, sleep
from typing import Any, Literal

from stream.config import AppConfig, CameraConfig, DetectorConfig
from stream.detector import Detector
from stream.device import Device
from stream.pipeline import Pipeline

COUNTS = (1, 2, 4, 8)
ROUNDS = 3
SIZE = "640x360"
WARM_UP_S = 1.0

Pace = Literal["realtime", "lossless"]
MOST_RATE = 900  # of one synthetic camera


def run(model: str, seconds: float = 6.0, device: Device = "cpu") -> dict[str, Any]:
    """Measure for ``seconds`` each.

    Returns:
        ``detected_fps``: by number of cameras, the median; ``over_one``: the median ratio to one camera's in the
        same round. ``fairness``: the slowest camera's rate over the fastest's under fourfold overload;
        ``fairness_mixed``: the same among four cameras of which two send twice as often as the others, all of
        them more than their share.
    """
    detector = Detector(model, device)
    rounds = [[_capacity(detector, count, seconds) for count in COUNTS] for _ in range(ROUNDS)]
    capacity = median(turn[-1] for turn in rounds)
    equal = _served(detector, [4 * capacity / 8] * 8, seconds)
    mixed = _served(detector, [4 * capacity / 3] * 2 + [2 * capacity / 3] * 2, seconds)
    return {
        "detected_fps": {
            str(count): round(median(turn[index] for turn in rounds), 1) for index, count in enumerate(COUNTS)
        },
        "over_one": {
            str(count): round(median(turn[index] / turn[0] for turn in rounds), 3)
            for index, count in enumerate(COUNTS)
        },
        "fairness": round(min(equal) / max(equal), 3),
        "fairness_mixed": round(min(mixed) / max(mixed), 3),
        "device": detector.device,
        "threads": detector.threads,
    }


def _capacity(detector: Detector, count: int, seconds: float) -> float:
    """Frames a second that were detected of all of ``count`` cameras that wait for the detector."""
    return sum(_served(detector, [MOST_RATE] * count, seconds, "lossless"))


def _served(detector: Detector, rates: list[float], seconds: float, pace: Pace = "realtime") -> list[float]:
    """Frames a second that were detected of each camera, which sends at ``rates``."""
    cameras = {
        f"camera{number}": CameraConfig(source=f"synthetic:{SIZE}@{_written(rate)}", pace=pace)
        for number, rate in enumerate(rates)
    }
    pipeline = Pipeline(AppConfig(cameras=cameras, detector=DetectorConfig()), detector)
    pipeline.start()
    try:
        sleep(WARM_UP_S)
        before, started = _detected(pipeline), monotonic()
        sleep(seconds)
        after, elapsed_s = _detected(pipeline), monotonic() - started
    finally:
        pipeline.stop()
    return [(late - early) / elapsed_s for early, late in zip(before, after, strict=True)]


def _written(rate: float) -> Fraction:
    return Fraction(round(min(rate, MOST_RATE)))


def _detected(pipeline: Pipeline) -> list[int]:
    return [camera.status().detected for camera in pipeline.cameras.values()]
