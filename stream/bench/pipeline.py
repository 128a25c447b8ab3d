"""How much of the machine reaches the user: the whole path against its three bare parts.

    efficiency        = fps x (decode + run + encode) / cores
    host_ms_per_frame = CPU of the whole path - (decode + run + encode)

``decode``, ``run`` and ``encode`` are the CPU seconds a frame of bare PyAV decoding, bare
``session.run`` and the bare encoder, each alone in this process. The whole path is the live
pipeline (decode thread, detector thread, tracker, drawing, encoder thread, one viewer) on the same
clip, every frame detected and shown, nothing dropped. Parts and whole are measured in turn, several
rounds, so that a drift of the machine's speed falls on both.

A part alone has the machine's caches and memory to itself, which no pipeline has. So the same three
calls are also made with nothing of lookout between them, one loop a core on all cores at once:

    bare_loop_efficiency    = fps of those loops x (decode + run + encode) / cores
    share_of_bare_loop      = fps / fps of those loops
    host_ms_over_bare_loop  = CPU of the whole path - CPU of those loops
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time, sleep
from typing import Any

import av
from av import VideoFrame

from stream.bench.clips import HEIGHT, WIDTH, clip_720p
from stream.bench.drain import Drain, wait_for, watched
from stream.config import AppConfig, CameraConfig, DetectorConfig
from stream.cores import usable_cores
from stream.detector import Detector, Pixels
from stream.encode import CLOCK_HZ, make_encoder
from stream.pipeline import Pipeline
from stream.webrtc.rendition import Rendition

ROUNDS = 3
FRAMES = 100  # of each bare part and round
WARM_UP_FRAMES = 20
BITRATE = 2_000_000


@dataclass(frozen=True, slots=True)
class _Round:
    """One turn of the parts and the whole. CPU seconds are of the whole process, a frame."""

    decode_s: float
    run_s: float
    encode_s: float
    whole_s: float
    fps: float
    loop_s: float
    loop_fps: float

    @property
    def parts_s(self) -> float:
        return self.decode_s + self.run_s + self.encode_s


def run(model: str, seconds: float = 10.0) -> dict[str, Any]:
    """Measure ``ROUNDS`` rounds, the whole path for ``seconds`` in each; medians are reported."""
    detector = Detector(model, device="cpu")
    with TemporaryDirectory(prefix="lookout-bench-") as folder:
        clip = clip_720p(Path(folder))
        rounds = [_measure(clip, detector, seconds) for _ in range(ROUNDS)]
    cores = usable_cores()
    efficiencies = [turn.fps * turn.parts_s / cores for turn in rounds]
    loops = [turn.loop_fps * turn.parts_s / cores for turn in rounds]
    return {
        "efficiency": round(median(efficiencies), 3),
        "efficiency_rounds": [round(efficiency, 3) for efficiency in efficiencies],
        "host_ms_per_frame": _ms(median(turn.whole_s - turn.parts_s for turn in rounds)),
        "bare_loop_efficiency": round(median(loops), 3),
        "share_of_bare_loop": round(median(turn.fps / turn.loop_fps for turn in rounds), 3),
        "host_ms_over_bare_loop": _ms(median(turn.whole_s - turn.loop_s for turn in rounds)),
        "fps": round(median(turn.fps for turn in rounds), 1),
        "allowed_fps": round(cores / median(turn.parts_s for turn in rounds), 1),
        "cpu_ms_per_frame": _ms(median(turn.whole_s for turn in rounds)),
        "decode_ms": _ms(median(turn.decode_s for turn in rounds)),
        "run_ms": _ms(median(turn.run_s for turn in rounds)),
        "encode_ms": _ms(median(turn.encode_s for turn in rounds)),
        "size": f"{WIDTH}x{HEIGHT}",
        "model": detector.path.stem,
        "device": detector.device,
        "threads": detector.threads,
        "cores": cores,
    }


def _measure(clip: Path, detector: Detector, seconds: float) -> _Round:
    pictures = list(_decoded(clip, FRAMES))
    batches = _batches(detector, pictures)
    whole = _whole(clip, detector, seconds)
    loop = _loops(clip, detector, batches, seconds)
    return _Round(_decode(clip), _run(detector, batches), _encode(pictures), *whole, *loop)


def _decode(clip: Path) -> float:
    started = process_time()
    count = sum(1 for _ in _decoded(clip, FRAMES))
    return (process_time() - started) / count


def _decoded(clip: Path, most: int) -> Iterator[VideoFrame]:
    """Decode as the app does a file, but for nothing else: one thread, no hand-off."""
    with av.open(str(clip)) as container:
        for index, picture in enumerate(container.decode(video=0)):
            if index == most:
                return
            yield picture


def _batches(detector: Detector, pictures: list[VideoFrame]) -> list[Pixels]:
    """What the detector would give the model for every tenth picture."""
    batches = []
    for picture in pictures[:: max(1, len(pictures) // 10)]:
        detector.detect([picture], 0.05)
        batches.append(detector.last_images.copy())
    return batches


def _run(detector: Detector, batches: list[Pixels]) -> float:
    """Bare ``session.run``; NMS costs what these pictures make it cost."""
    started = process_time()
    for index in range(FRAMES):
        detector.session.run(batches[index % len(batches)])
    return (process_time() - started) / FRAMES


def _encode(pictures: list[VideoFrame]) -> float:
    encoder = make_encoder("h264", BITRATE, 25)
    started = process_time()
    for index, picture in enumerate(pictures):
        encoder.encode(picture, index * CLOCK_HZ // 25, index == 0, 0.0)
    return (process_time() - started) / len(pictures)


def _whole(clip: Path, detector: Detector, seconds: float) -> tuple[float, float]:
    """(CPU seconds a frame, frames a second) of the live pipeline in its steady state."""
    camera = CameraConfig(source=str(clip), pace="lossless", overlay="exact", loop=True)
    pipeline = Pipeline(AppConfig(cameras={"bench": camera}, detector=DetectorConfig()), detector)
    hub = pipeline.cameras["bench"].hub(Rendition("h264"))
    with watched(hub, Drain()):
        pipeline.start()
        try:
            wait_for(lambda: hub.units >= WARM_UP_FRAMES)
            units, cpu, clock = hub.units, process_time(), perf_counter()
            sleep(seconds)
            units, cpu, clock = hub.units - units, process_time() - cpu, perf_counter() - clock
        finally:
            pipeline.stop()
    return cpu / units, units / clock


def _loops(clip: Path, detector: Detector, batches: list[Pixels], seconds: float) -> tuple[float, float]:
    """(CPU seconds a frame, frames a second) of bare decode, run and encode, one loop on each core."""
    frames = [0] * usable_cores()
    stop = threading.Event()

    def loop(place: int) -> None:
        session, encoder = detector.session.twin(), make_encoder("h264", BITRATE, 25)
        while not stop.is_set():
            for picture in _decoded(clip, FRAMES):
                session.run(batches[frames[place] % len(batches)])
                encoder.encode(picture, frames[place] * CLOCK_HZ // 25, frames[place] == 0, 0.0)
                frames[place] += 1
                if stop.is_set():
                    return

    threads = [threading.Thread(target=loop, args=(place,), daemon=True) for place in range(len(frames))]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: min(frames) >= WARM_UP_FRAMES)
        before, cpu, clock = sum(frames), process_time(), perf_counter()
        sleep(seconds)
        count, cpu, clock = sum(frames) - before, process_time() - cpu, perf_counter() - clock
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return cpu / count, count / clock


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)
