"""A thousand viewers come and go, half of them killed without a word: what they leave behind.

The app's own hub and WHEP in this process, viewers in others, ten a process. One process in two is
killed with SIGKILL while it watches, the others leave by DELETE. Sampled after every tenth of the
joins, once every session has ended: memory, and what is open. Freed memory stays with the process for a while,
in pieces; what is still in use is what is left once the C library has given it back.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import multiprocessing
import os
import socket
import threading
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import psutil
import uvicorn
from fastapi import FastAPI

from stream.bench.drain import OneHub
from stream.bench.texture import BITRATE, play
from stream.bench.watchers import join, receive
from stream.errors import LookoutError
from stream.webrtc.hub import Hub
from stream.webrtc.sessions import SILENCE_TIMEOUT_S
from stream.webrtc.whep import WhepService

JOINS = 1000
A_PROCESS = 10
PROCESSES_AT_ONCE = 4
SAMPLES = 10


@dataclass(frozen=True, slots=True)
class _Left:
    """What is open when nobody watches."""

    rss_mb: float
    kept_mb: float  # of it, still in use
    tasks: int
    sockets: int
    threads: int


def run(joins: int = JOINS) -> dict[str, Any]:
    """Have ``joins`` viewers come and go; figures as growth from the first sample to the last."""
    return asyncio.run(_run(joins))


async def _run(joins: int) -> dict[str, Any]:
    shown = OneHub("bench", BITRATE)
    hub = shown.only
    service = WhepService(lambda camera_id: shown, max_viewers=joins, loopback_only=True)
    app = FastAPI()
    app.include_router(service.router)
    stop = threading.Event()
    camera = threading.Thread(target=play, args=(hub, stop), name="camera")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        serving = asyncio.create_task(server.serve([listener]))
        camera.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/whep/bench"
        try:
            samples = [await _sample(hub, url, joins // SAMPLES, turn) for turn in range(SAMPLES)]
        finally:
            await service.close()
            server.should_exit = True
            await serving
            hub.close()
            stop.set()
            await asyncio.to_thread(camera.join)
    first, last = samples[0], samples[-1]
    kept = [sample.kept_mb for sample in samples]
    slope = float(np.polyfit(range(len(kept) // 2), kept[len(kept) - len(kept) // 2 :], 1)[0])
    return {
        "joins": joins // SAMPLES // A_PROCESS * A_PROCESS * SAMPLES,
        "killed_percent": 50,
        "encoder_starts": hub.encoder_starts,
        "rss_mb": [round(sample.rss_mb, 1) for sample in samples],
        "kept_mb": [round(value, 1) for value in kept],
        "kept_slope_mb_per_1000": round(slope * SAMPLES * 1000 / joins, 2),
        "tasks_left": last.tasks - first.tasks,
        "sockets_left": last.sockets - first.sockets,
        "threads_left": last.threads - first.threads,
    }


async def _sample(hub: Hub, url: str, joins: int, turn: int) -> _Left:
    """Let ``joins`` viewers come and go, wait until all sessions have ended, and look."""
    places = asyncio.Semaphore(PROCESSES_AT_ONCE)
    visits = [
        _visit(url, places, killed=(turn + number) % 2 == 0) for number in range(max(1, joins // A_PROCESS))
    ]
    await asyncio.gather(*visits)
    await _until(lambda: hub.viewers == 0 and not _sessions(), SILENCE_TIMEOUT_S + 10)
    await asyncio.sleep(1.0)
    process = psutil.Process()
    rss_mb = process.memory_info().rss / 1e6
    _give_back()
    return _Left(
        rss_mb,
        process.memory_info().rss / 1e6,
        len(asyncio.all_tasks()),
        len([None for entry in Path("/proc/self/fd").iterdir() if _is_socket(entry)]),
        threading.active_count(),
    )


def _give_back() -> None:
    """Have Python and, where it is glibc, the C library return what they do not use to the system."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _sessions() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("viewer-")]


def _is_socket(entry: Path) -> bool:
    try:
        return os.readlink(entry).startswith("socket:")
    except OSError:  # closed meanwhile
        return False


async def _visit(url: str, places: asyncio.Semaphore, *, killed: bool) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    async with places:
        ours, theirs = context.Pipe()
        process = context.Process(target=_watch, args=(url, theirs), daemon=True)
        await asyncio.to_thread(process.start)
        theirs.close()
        try:
            await receive(ours)
            if killed:
                process.kill()
            else:
                ours.send("leave")
            await asyncio.to_thread(process.join, 30)
        finally:
            process.kill()
            ours.close()


def _watch(url: str, pipe: Connection) -> None:
    asyncio.run(_watch_all(url, pipe))


async def _watch_all(url: str, pipe: Connection) -> None:
    joined = [await join(url) for _ in range(A_PROCESS)]
    pipe.send("joined")
    await asyncio.to_thread(pipe.recv)
    for _, _, location in joined:
        await asyncio.to_thread(_leave, location)
    await asyncio.gather(*(connection.close() for connection, _, _ in joined))


def _leave(location: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(location, method="DELETE"), timeout=10):
        pass


async def _until(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = monotonic() + timeout_s
    while not condition():
        if monotonic() > deadline:
            raise LookoutError(f"sessions of viewers that are gone were still open after {timeout_s:g} s")
        await asyncio.sleep(0.1)
