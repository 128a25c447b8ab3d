"""Sender CPU per viewer-second: the app's own hub and WHEP in this process, viewers in others.

``cpu_ms_per_viewer_s`` is the CPU time of the event loop's thread, which does everything that a
viewer costs (headers, encryption, ``sendto``, RTCP, ICE), over viewers and seconds. Drawing and encoding
happen once in another thread and are not in it. ``late_percent`` is how many pictures came more than 100 ms
after their capture, or never. ``one_core`` is the same again with all of the sender, encoder included, held to
one core. ``marginal_ms_per_viewer_s`` is the cross-check from the whole process: (cpu(N) - cpu(1)) / (N - 1).
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from multiprocessing.connection import Connection
from typing import Any

import uvicorn
from fastapi import FastAPI

from stream.bench import stock
from stream.bench.drain import OneHub, Recorder
from stream.bench.texture import BITRATE, HEIGHT, RATE, WIDTH, play
from stream.bench.watchers import receive, watch
from stream.webrtc.hub import Hub
from stream.webrtc.whep import WhepService

COUNTS = (1, 4, 16, 48)
ON_ONE_CORE = 100
LATE_S = 0.1
VIEWERS_A_PROCESS = 16


def run(
    seconds: float = 10.0, counts: Sequence[int] = COUNTS, on_one_core: int | None = ON_ONE_CORE
) -> dict[str, Any]:
    """Measure with each number of viewers for ``seconds``, then with ``on_one_core`` of them on one core.

    Raises:
        LookoutError: viewers could not join.
    """
    measured = asyncio.run(_measure_all(seconds, sorted({1, *counts})))
    alone = measured[0]
    return {
        "cpu_ms_per_viewer_s": {str(m.viewers): round(m.loop_ms_per_s / m.viewers, 2) for m in measured},
        "marginal_ms_per_viewer_s": {
            str(m.viewers): round((m.process_ms_per_s - alone.process_ms_per_s) / (m.viewers - 1), 2)
            for m in measured[1:]
        },
        "process_ms_per_s": {str(m.viewers): round(m.process_ms_per_s, 1) for m in measured},
        "kbps_per_viewer": {str(m.viewers): round(m.kbps) for m in measured},
        "fps": {str(m.viewers): round(m.fps, 1) for m in measured},
        "packets_lost_percent": {str(m.viewers): round(m.lost_percent, 3) for m in measured},
        "late_percent": {str(m.viewers): round(m.late_percent, 3) for m in measured},
        "size": f"{WIDTH}x{HEIGHT}@{RATE}",
        "aiortc_ms_per_viewer_s": stock.run(seconds),
        **({} if on_one_core is None else {"one_core": _on_one_core(seconds, on_one_core)}),
    }


def _on_one_core(seconds: float, viewers: int) -> dict[str, Any] | str:
    """The sender on the first core that it may use, the viewers on the others."""
    if not hasattr(os, "sched_setaffinity") or len(cores := sorted(os.sched_getaffinity(0))) < 2:
        return "not measured: needs Linux and two cores"
    os.sched_setaffinity(0, cores[:1])  # of this thread, and so of those that it starts
    try:
        (held,) = asyncio.run(_measure_all(seconds, [viewers], viewers_on=cores[1:]))
    finally:
        os.sched_setaffinity(0, cores)
    return {
        "viewers": held.viewers,
        "late_percent": round(held.late_percent, 3),
        "worst_ms": round(held.worst_ms, 1),
        "packets_lost_percent": round(held.lost_percent, 3),
        "cpu_ms_per_viewer_s": round(held.loop_ms_per_s / held.viewers, 2),
        "core_busy_percent": round(held.process_ms_per_s / 10, 1),
    }


@dataclass(frozen=True, slots=True)
class _Measured:
    viewers: int
    loop_ms_per_s: float
    process_ms_per_s: float
    kbps: float
    fps: float
    lost_percent: float
    late_percent: float
    worst_ms: float


async def _measure_all(
    seconds: float, counts: Sequence[int], viewers_on: Sequence[int] = ()
) -> list[_Measured]:
    shown = OneHub("bench", BITRATE)
    hub = shown.only
    service = WhepService(lambda camera_id: shown, max_viewers=max(counts), loopback_only=True)
    app = FastAPI()
    app.include_router(service.router)
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        serving = asyncio.create_task(server.serve([listener]))
        stop = threading.Event()
        camera = threading.Thread(target=play, args=(hub, stop), name="camera")
        camera.start()
        stack.callback(stop.set)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/whep/bench"
        try:
            return [await _measure(hub, url, viewers, seconds, viewers_on) for viewers in counts]
        finally:
            await service.close()
            server.should_exit = True
            await serving
            hub.close()
            stop.set()
            await asyncio.to_thread(camera.join)


async def _measure(hub: Hub, url: str, viewers: int, seconds: float, viewers_on: Sequence[int]) -> _Measured:
    context = multiprocessing.get_context("spawn")
    watchers: list[tuple[Any, Connection]] = []
    for first in range(0, viewers, VIEWERS_A_PROCESS):
        ours, theirs = context.Pipe()
        count = min(VIEWERS_A_PROCESS, viewers - first)
        process = context.Process(target=watch, args=(url, count, theirs, viewers_on), daemon=True)
        process.start()
        theirs.close()
        watchers.append((process, ours))
    try:
        for _, pipe in watchers:
            await receive(pipe)
        await asyncio.sleep(stock.SETTLE_S)
        recorder = Recorder()
        hub.join(recorder)
        before = (time.perf_counter(), time.thread_time(), time.process_time(), hub.bytes, hub.units)
        await asyncio.sleep(seconds)
        after = (time.perf_counter(), time.thread_time(), time.process_time(), hub.bytes, hub.units)
        elapsed_s, loop_s, process_s, size, units = (b - a for a, b in zip(before, after, strict=True))
        hub.leave(recorder)
        await asyncio.sleep(2 * LATE_S)
        received = missing = 0
        ages_s: list[float] = []
        for _, pipe in watchers:
            pipe.send("leave")
            counted = json.loads(await receive(pipe))
            received, missing = received + counted["received"], missing + counted["missing"]
            ages_s += [
                arrivals.get(str(rtp), inf) - captured_at
                for arrivals in counted["arrivals"]
                for rtp, captured_at in recorder.captured_at.items()
            ]
    finally:
        for process, _ in watchers:
            await asyncio.to_thread(process.join, 10)
            process.kill()
    return _Measured(
        viewers,
        loop_ms_per_s=1000 * loop_s / elapsed_s,
        process_ms_per_s=1000 * process_s / elapsed_s,
        kbps=size * 8 / 1000 / elapsed_s,
        fps=units / elapsed_s,
        lost_percent=100 * missing / max(1, received + missing),
        late_percent=100 * sum(age_s > LATE_S for age_s in ages_s) / max(1, len(ages_s)),
        worst_ms=1000 * max(ages_s, default=inf),
    )
