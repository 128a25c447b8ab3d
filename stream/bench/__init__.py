"""``lookout bench``: what this machine measures. One file a benchmark, each with ``run() -> dict``."""

BENCHMARKS = {
    "pipeline": "frames a second through the whole path, over what the bare parts allow",
    "latency": "capture to shown in Chromium, and join to first picture, from a barcode",
    "viewers": "sender CPU per viewer-second",
    "growth": "frame age and drops while the detector is slower than the camera",
}
