"""Whether viewers see that a detector's model is exchanged: ``python -m tests.benchmarks.swap``.

A real ``lookout watch`` with one camera, and four pages of a real Chromium that show it, all looked at from outside.
For half of the time nothing is exchanged; then one model takes over from the other again and again over HTTP, each
time loaded anew, and every third time taken back. What counts is the time between two pictures that a page presents
(``requestVideoFrameCallback``): the longest at each viewer, and how many were longer than ``FROZEN_MS``. Four
decoders and compositors take more than the app: ``--packets`` has viewers in another process that only note when each
picture came.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import httpx2 as httpx
import numpy as np

from stream.bench.chromium import chromium, wait_for, watching_page
from stream.bench.watchers import watch
from tests.benchmarks.running import Figures, arguments, asking, ending, told, watching

if TYPE_CHECKING:
    from playwright.sync_api import Page

VIEWERS = 4
FROZEN_MS = 100.0
PAUSE_S = 2.0
SETTLE_S = 3.0
CAMERA, DETECT_FPS = "synthetic:640x360@30", 10  # what is measured is not a lack of cores


def run(
    seconds: float, out: Path, models: Sequence[str], *, packets: bool = False, viewers: int = VIEWERS
) -> Figures:
    """Watch for ``seconds``, half of them while ``models``, two names or paths, take turns.

    Returns:
        ``still``, ``swapping``: of each phase the longest gap in milliseconds at each viewer, how many there were over
        ``FROZEN_MS``, all gaps' 99.9th percentile, and pictures a second; ``swaps`` and ``swap_s``, how many there
        were and what each took from PUT to answer, by way; ``rss_mb`` of the app after each swap.
    """
    first, second = models
    folders = sorted({str(Path(model).resolve().parent) for model in models if "/" in model})
    config = {
        "server": {"allow_models": folders},
        "detector": {"model": first},
        "cameras": {"camera": {"source": CAMERA, "detect_fps": DETECT_FPS}},
    }
    figures: Figures = {"viewers": viewers, "camera": CAMERA, "load_before": round(os.getloadavg()[0], 2)}
    with watching(config, out) as app, asking(app) as http, ExitStack() as stack:
        crowd = stack.enter_context((_packets if packets else _pages)(app.url, viewers))
        time.sleep(SETTLE_S)
        phases = {"still": _passed(lambda: crowd.wait(seconds / 2))}
        swaps = _Swaps(http, crowd.wait, app.process.pid, (str(Path(second)), first))
        phases["swapping"] = _passed(lambda: swaps.go_on(seconds / 2))
        shown = crowd.shown()
        figures |= {name: _gaps(shown, *span) for name, span in phases.items()} | swaps.figures()
    return figures | {"load_after": round(os.getloadavg()[0], 2), "ending": ending(app)}


class _Crowd(Protocol):
    """Viewers of one camera."""

    def wait(self, seconds: float) -> None:
        """Let time pass."""

    def shown(self) -> list[list[float]]:
        """When each viewer had its pictures, in ``time.monotonic()`` seconds; they leave."""


class _Pages:
    """As ``_Crowd``, in Chromium."""

    def __init__(self, pages: Sequence[Page]) -> None:
        self._pages = pages

    def wait(self, seconds: float) -> None:
        self._pages[0].wait_for_timeout(1000 * seconds)

    def shown(self) -> list[list[float]]:
        return [self._of(page) for page in self._pages]

    def _of(self, page: Page) -> list[float]:
        shown_ms, now_ms = page.evaluate("[lookout.shown.map((picture) => picture[1]), performance.now()]")
        now = time.monotonic()  # some milliseconds late, which only moves where a phase begins
        return [now + (each - now_ms) / 1000 for each in shown_ms]


class _Peers:
    """As ``_Crowd``, as packets in another process."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def shown(self) -> list[list[float]]:
        self._pipe.send("leave")
        return [sorted(arrivals.values()) for arrivals in json.loads(self._pipe.recv())["arrivals"]]


@contextmanager
def _pages(url: str, viewers: int) -> Iterator[_Pages]:
    with chromium() as browser:
        pages = [watching_page(browser, 640, 480) for _ in range(viewers)]
        for page in pages:
            page.goto(url)
            wait_for(page, "lookout.shown.length > 0", 60)
        yield _Pages(pages)


@contextmanager
def _packets(url: str, viewers: int) -> Iterator[_Peers]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=watch, args=(f"{url}/whep/camera", viewers, theirs), daemon=True)
    process.start()
    try:
        ours.recv()
        yield _Peers(ours)
    finally:
        process.join(10)
        process.kill()


class _Swaps:
    """Takes turns, and notes how long each took and what memory the app then had."""

    def __init__(
        self, http: httpx.Client, wait: Callable[[float], None], pid: int, models: Sequence[str]
    ) -> None:
        self._http, self._wait, self._pid, self._models = http, wait, pid, models
        self._taken_s: dict[str, list[float]] = {"loaded": [], "back": []}
        self._rss_mb: list[float] = []

    def go_on(self, seconds: float) -> None:
        """Each begins ``PAUSE_S`` after the one before was answered."""
        until, number = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            way = "back" if number % 3 == 2 else "loaded"
            wish = {"previous": True} if way == "back" else {"model": self._models[number % 3 % 2]}
            began = time.monotonic()
            self._http.put("/api/detector", json=wish, timeout=300).raise_for_status()
            self._taken_s[way].append(time.monotonic() - began)
            self._rss_mb.append(_rss_mb(self._pid))
            self._wait(PAUSE_S)
            number += 1

    def figures(self) -> Figures:
        return {
            "swaps": sum(map(len, self._taken_s.values())),
            "swap_s": {way: [round(each, 2) for each in taken] for way, taken in self._taken_s.items()},
            "rss_mb": self._rss_mb,
        }


def _passed(pass_time: Callable[[], None]) -> tuple[float, float]:
    """When it began and ended."""
    began = time.monotonic()
    pass_time()
    return began, time.monotonic()


def _gaps(shown: Sequence[Sequence[float]], began: float, ended: float) -> Figures:
    """The gaps between the pictures that viewers had in that time."""
    gaps_ms = [1000 * np.diff([at for at in times if began <= at <= ended]) for times in shown]
    joined = np.concatenate(gaps_ms)
    return {
        "longest_ms": [round(float(gaps.max(initial=0)), 1) for gaps in gaps_ms],
        f"over_{FROZEN_MS:g}_ms": [int((gaps > FROZEN_MS).sum()) for gaps in gaps_ms],
        "p99.9_ms": round(float(np.percentile(joined, 99.9)), 1) if len(joined) else None,
        "shown_fps": [round(len(gaps) / (ended - began), 1) for gaps in gaps_ms],
        "seconds": round(ended - began, 1),
    }


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def main() -> int:
    own = ArgumentParser(add_help=False)
    own.add_argument(
        "--models", nargs=2, required=True, metavar="MODEL", help="names or paths of two detectors"
    )
    own.add_argument("--packets", action="store_true", help="viewers that decode nothing")
    mine, sys.argv[1:] = own.parse_known_args()
    given = arguments("Whether viewers see that models are exchanged; --models A B, --packets.", 120.0)
    return told(run(given.seconds, given.out, mine.models, packets=mine.packets), given)


if __name__ == "__main__":
    raise SystemExit(main())
