"""CPU and wall time a frame that each way of decoding takes here, of one H.264 clip in two sizes.

Pictures come the way a camera reads them, so what a decoder in hardware saves is net of fetching its pictures
back. What is not there is said, not measured. The ways take turns, so that a drift of the machine's speed falls
on all.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any, NamedTuple

import av
from av.video.reformatter import Interpolation

from stream.errors import LookoutError
from stream.sources import SourceOptions, demo_clip, open_source

WAYS: dict[str, SourceOptions] = {
    "pyav": SourceOptions(backend="pyav", pace="lossless"),
    "pyav cuda": SourceOptions(backend="pyav", hwaccel="cuda", pace="lossless"),
    "gstreamer": SourceOptions(backend="gstreamer", pace="lossless"),
}
HEIGHTS = (720, 2160)
FRAMES = 100
ROUNDS = 3
WARM_UP = 10


class _Cost(NamedTuple):
    cpu_ms: float
    wall_ms: float


def run(rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure every way on every size.

    Returns:
        ``cpu_ms`` and ``wall_ms`` of a frame: by height, by way, the medians; ``missing``: why a way is not there.
    """
    costs: dict[tuple[int, str], list[_Cost]] = {}
    missing: dict[str, str] = {}
    with TemporaryDirectory(prefix="lookout-bench-") as folder:
        clips = {height: _clip(Path(folder), height) for height in HEIGHTS}
        for _ in range(rounds):
            for height, clip in clips.items():
                for way, options in WAYS.items():
                    if way in missing:
                        continue
                    try:
                        costs.setdefault((height, way), []).append(_cost(clip, options))
                    except LookoutError as error:
                        missing[way] = str(error)
    return {
        "cpu_ms": _by_height(costs, 0),
        "wall_ms": _by_height(costs, 1),
        "missing": missing,
    }


def _cost(clip: Path, options: SourceOptions) -> _Cost:
    """Of a frame after the first ones. All threads of the process count, whoever they belong to."""
    source = open_source(str(clip), options)
    try:
        for _ in range(WARM_UP):
            source.read()
        frames, cpu, wall = 0, process_time(), perf_counter()
        while source.read() is not None:
            frames += 1
        return _Cost((process_time() - cpu) / frames * 1000, (perf_counter() - wall) / frames * 1000)
    finally:
        source.close()


def _by_height(costs: dict[tuple[int, str], list[_Cost]], part: int) -> dict[str, dict[str, float]]:
    return {
        str(height): {
            way: round(median(cost[part] for cost in found), 2)
            for (its_height, way), found in costs.items()
            if its_height == height
        }
        for height in HEIGHTS
    }


def _clip(folder: Path, height: int) -> Path:
    """The start of the demo clip, enlarged, as H.264 the way cameras send it."""
    path, width = folder / f"{height}.mp4", height * 16 // 9
    with av.open(str(demo_clip())) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = 3_000_000 * height // 720
        stream.options = {"preset": "veryfast", "bf": "0", "g": "50"}
        for number, picture in enumerate(source.decode(video=0)):
            if number == FRAMES:
                break
            enlarged = picture.reformat(width, height, "yuv420p", interpolation=Interpolation.BILINEAR)
            target.mux(stream.encode(enlarged))
        target.mux(stream.encode(None))
    return path
