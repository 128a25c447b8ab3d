"""Whether viewers see that a detector's model is exchanged: ``python -m tests.benchmarks.swap``.

A real ``lookout watch`` with one camera, and four pages of a real Chromium that show it, all looked at from outside.
For half of the time nothing is exchanged; then one model takes over from the other again and again over HTTP, each
time loaded anew, and every third time taken back. What counts is the time between two pictures that a page presents
(``requestVideoFrameCallback``): the longest at each viewer, and how many were longer than ``FROZEN_MS``.
"""

from __future__ import annotations

import os
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2 as httpx
import numpy as np

from stream.bench.chromium import chromium, wait_for, watching_page
from tests.benchmarks.running import Figures, arguments, asking, ending, told, watching

if TYPE_CHECKING:
    from playwright.sync_api import Page

VIEWERS = 4
FROZEN_MS = 100.0
PAUSE_S = 2.0
SETTLE_MS = 3000.0
CAMERA = "synthetic:640x360@30"


def run(seconds: float, out: Path, models: Sequence[str], viewers: int = VIEWERS) -> Figures:
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
        "cameras": {"camera": {"source": CAMERA}},
    }
    figures: Figures = {"viewers": viewers, "camera": CAMERA, "load_before": round(os.getloadavg()[0], 2)}
    with watching(config, out) as app, asking(app) as http, chromium() as browser:
        pages = [watching_page(browser, 640, 480) for _ in range(viewers)]
        for page in pages:
            page.goto(app.url)
            wait_for(page, "lookout.shown.length > 0", 60)
        pages[0].wait_for_timeout(SETTLE_MS)
        figures["still"] = _phase(pages, lambda: pages[0].wait_for_timeout(500 * seconds))
        swaps = _Swaps(http, pages[0], app.process.pid, (str(Path(second)), first))
        figures["swapping"] = _phase(pages, lambda: swaps.go_on(seconds / 2))
        figures |= swaps.figures()
        for page in pages:
            page.context.close()
    return figures | {"load_after": round(os.getloadavg()[0], 2), "ending": ending(app)}


class _Swaps:
    """Takes turns, and notes how long each took and what memory the app then had."""

    def __init__(self, http: httpx.Client, page: Page, pid: int, models: Sequence[str]) -> None:
        self._http, self._page, self._pid, self._models = http, page, pid, models
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
            self._page.wait_for_timeout(1000 * PAUSE_S)
            number += 1

    def figures(self) -> Figures:
        return {
            "swaps": sum(map(len, self._taken_s.values())),
            "swap_s": {way: [round(each, 2) for each in taken] for way, taken in self._taken_s.items()},
            "rss_mb": self._rss_mb,
        }


def _phase(pages: Sequence[Page], pass_time: Callable[[], None]) -> Figures:
    """The gaps between the pictures that the pages present meanwhile."""
    for page in pages:
        page.evaluate("lookout.shown.length = 0")
    began = time.monotonic()
    pass_time()
    elapsed_s = time.monotonic() - began
    gaps_ms = [np.diff(page.evaluate("lookout.shown.map((picture) => picture[1])")) for page in pages]
    joined = np.concatenate(gaps_ms)
    return {
        "longest_ms": [round(float(gaps.max(initial=0)), 1) for gaps in gaps_ms],
        f"over_{FROZEN_MS:g}_ms": [int((gaps > FROZEN_MS).sum()) for gaps in gaps_ms],
        "p99.9_ms": round(float(np.percentile(joined, 99.9)), 1) if len(joined) else None,
        "shown_fps": [round(len(gaps) / elapsed_s, 1) for gaps in gaps_ms],
        "seconds": round(elapsed_s, 1),
    }


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def main() -> int:
    own = ArgumentParser(add_help=False)
    own.add_argument(
        "--models", nargs=2, required=True, metavar="MODEL", help="names or paths of two detectors"
    )
    models, sys.argv[1:] = own.parse_known_args()
    given = arguments("Whether viewers see that models are exchanged; --models A B.", 120.0)
    return told(run(given.seconds, given.out, models.models), given)


if __name__ == "__main__":
    raise SystemExit(main())
