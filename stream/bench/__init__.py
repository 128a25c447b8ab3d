"""``lookout bench``: what this machine measures. One file a benchmark, each with ``run() -> dict``."""

from __future__ import annotations

from typing import Any

BENCHMARKS = {
    "pipeline": "frames a second through the whole path, over what the bare parts allow",
    "latency": "capture to shown in Chromium, and join to first picture, from a barcode",
    "viewers": "sender CPU per viewer-second",
    "growth": "frame age and drops while the detector is slower than the camera",
}


def run(benchmark: str, model: str | None, seconds: float | None) -> dict[str, Any]:
    """Run one of ``BENCHMARKS``; None takes its own default."""
    if benchmark == "pipeline":
        from stream.bench.pipeline import run as measure
    elif benchmark == "latency":
        from stream.bench.latency import run as measure
    elif benchmark == "viewers":
        from stream.bench.viewers import run as measure
    else:
        from stream.bench.growth import run as measure
    given = {"model": model, "seconds": seconds}
    return measure(**{name: value for name, value in given.items() if value is not None})
