"""``lookout bench``: what this machine measures. One file a benchmark, each with ``run() -> dict``."""

from __future__ import annotations

from typing import Any

BENCHMARKS = {
    "pipeline": "frames a second through the whole path, over what the bare parts allow",
    "latency": "capture to shown in Chromium, and join to first picture, from a barcode",
    "viewers": "sender CPU per viewer-second",
    "joins": "what a thousand viewers leave behind, half of them killed",
    "boxes": "whether boxes drawn by the browser are those of the frame that it shows",
    "cameras": "the detector's rate with one to eight cameras, and whether each gets its share",
    "decode": "CPU a frame of each way of decoding",
    "growth": "frame age and drops while the detector is slower than the camera",
    "tracker": "HOTA, MOTA, IDF1 and milliseconds a frame of tracking alone, beside other trackers",
    "lineage": "seconds a picture and AP from HOG to YOLO, beside the lecture's",
    "precision": "speed and accuracy of int8 and float16 against float32",
    "contract": "what pre- and postprocessing in the graph add to a stranger's bare model",
}


def run(benchmark: str, model: str, seconds: float | None, **more: Any) -> dict[str, Any]:
    """Run one of ``BENCHMARKS``; ``seconds`` of None takes its own default; ``more`` is for those that take more."""
    length: dict[str, Any] = {} if seconds is None else {"seconds": seconds}
    if benchmark == "pipeline":
        from stream.bench import pipeline

        return pipeline.run(model=model, **length)
    if benchmark == "latency":
        from stream.bench import latency

        return latency.run(model=model, **length)
    if benchmark == "cameras":
        from stream.bench import cameras

        return cameras.run(model=model, **length, **more)
    if benchmark == "decode":
        from stream.bench import decode

        return decode.run()
    if benchmark == "growth":
        from stream.bench import growth

        return growth.run(model=model, **length)
    if benchmark == "tracker":
        from stream.bench import tracker

        return tracker.run(**more)
    if benchmark == "lineage":
        from stream.bench import lineage

        return lineage.run(**more)
    if benchmark == "precision":
        from stream.bench import precision

        return precision.run(model=model, **length, **more)
    if benchmark == "contract":
        from stream.bench import contract

        return contract.run(model=model, **length)
    if benchmark == "joins":
        from stream.bench import joins

        return joins.run()
    if benchmark == "boxes":
        from stream.bench import boxes

        return boxes.run(**length)
    from stream.bench import viewers

    return viewers.run(**length)
