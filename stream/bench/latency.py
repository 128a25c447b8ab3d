"""Capture to shown, and join to first picture, in a real Chromium over loopback.

The app runs in this process with a synthetic camera whose pictures carry their number; Chromium runs
beside it and says for each picture it presents which number it reads and when the picture is to be on
the screen. Both clocks are the machine's monotonic clock; their offset is measured.

What is counted: from the moment the frame leaves the source (``Frame.captured_at``) to the browser's
``expectedDisplayTime``. What is not: the camera's own delay before it, the screen's after it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import uvicorn

from stream.app import listen, open_detector
from stream.bench.chromium import chromium, wait_for, watching_page
from stream.bench.drain import Recorder
from stream.config_file import config_from_sources
from stream.encode import CLOCK_HZ
from stream.errors import LookoutError
from stream.pipeline import Pipeline
from stream.server import create_app
from stream.webrtc.rendition import Rendition

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CAMERA, RATE = "synthetic:1280x720@30", 30
JOINS = 7
VISITS = 4
WARM_UP_S = 1.5


def run(seconds: float = 20.0, model: str | None = None) -> dict[str, Any]:
    """Measure for ``seconds`` with each overlay.

    Returns:
        ``p50_ms``, ``p95_ms``: capture to shown with the smooth overlay, where no inference lies on a
        picture's way (it runs beside it, on the same cores); ``exact_p50_ms``, ``exact_p95_ms``: with
        the exact overlay, less the mean ``inference_ms``; ``join_ms``: median from ``new
        RTCPeerConnection`` to the first picture; and how sure each is.

    Raises:
        LookoutError: no browser, or it shows nothing.
    """
    result: dict[str, Any] = {"camera": CAMERA, "seconds": seconds}
    with chromium() as browser:
        with _app("smooth", model) as app:
            result["model"], result["device"] = app.pipeline.detector.path.stem, app.pipeline.detector.device
            result |= _joins(browser, app)
            result |= _watch(browser, app, seconds).figures("")
        with _app("exact", model) as app:
            exact = _watch(browser, app, seconds)
            result |= exact.less(exact.inference_ms).figures("exact_")
    return result


@dataclass(frozen=True, slots=True)
class _Sample:
    """Capture to shown of every picture, and what went on meanwhile."""

    latencies_ms: Sequence[float]
    inference_ms: float
    shown_fps: float
    misread: int
    clock_error_ms: float

    def less(self, inference_ms: float) -> _Sample:
        rest = [latency - inference_ms for latency in self.latencies_ms]
        return _Sample(rest, inference_ms, self.shown_fps, self.misread, self.clock_error_ms)

    def figures(self, prefix: str) -> dict[str, float]:
        p50, p95 = np.percentile(self.latencies_ms, (50, 95))
        return {
            f"{prefix}p50_ms": round(float(p50), 1),
            f"{prefix}p95_ms": round(float(p95), 1),
            f"{prefix}shown_fps": round(self.shown_fps, 1),
            f"{prefix}pictures": len(self.latencies_ms),
            f"{prefix}inference_ms": round(self.inference_ms, 1),
            f"{prefix}misread": self.misread,
            f"{prefix}clock_error_ms": round(self.clock_error_ms, 2),
        }


@dataclass(frozen=True, slots=True)
class _App:
    url: str
    pipeline: Pipeline
    loop: asyncio.AbstractEventLoop

    def record(self) -> Recorder:
        """Start recording capture times; the encoder then runs whoever else watches."""
        recorder = Recorder()
        hub = self.pipeline.camera("synthetic").hub(Rendition("h264"))
        self.loop.call_soon_threadsafe(hub.join, recorder)
        return recorder


@contextmanager
def _app(overlay: Literal["smooth", "exact"], model: str | None) -> Iterator[_App]:
    """The app as ``lookout watch`` runs it, its event loop in a thread of this process."""
    settings: dict[str, dict[str, object]] = {
        "server": {"port": 0},
        "detector": {"model": model} if model else {},
    }
    config = config_from_sources([CAMERA], settings, {"overlay": overlay})
    pipeline = Pipeline(config, open_detector(config.detector, lambda line: None))
    listener = listen(config.server)
    server = uvicorn.Server(
        uvicorn.Config(create_app(pipeline, config.server), log_config=None, access_log=False, ws="none")
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve([listener])), name="serve")
    pipeline.start()
    thread.start()
    try:
        _await(lambda: server.started and pipeline.camera("synthetic").status().state == "live", "the app")
        yield _App(f"http://127.0.0.1:{listener.getsockname()[1]}", pipeline, loop)
    finally:
        server.should_exit = True
        thread.join()
        loop.close()
        pipeline.stop()
        listener.close()


def _joins(browser: Browser, app: _App) -> dict[str, Any]:
    """Open the page ``JOINS`` times while the camera runs and nobody else watches."""
    times_ms = []
    for _ in range(JOINS):
        page = watching_page(browser)
        page.goto(app.url)
        wait_for(page, "lookout.shown.length > 0")
        times_ms.append(page.evaluate("lookout.shown[0][1] - lookout.joins.at(-1)"))
        page.context.close()
        _await(lambda: app.pipeline.camera("synthetic").status().viewers == 0, "the end of a session")
    return {
        "join_ms": round(float(np.median(times_ms)), 1),
        "join_max_ms": round(max(times_ms), 1),
        "joins": len(times_ms),
    }


def _watch(browser: Browser, app: _App, seconds: float) -> _Sample:
    """Watch for ``seconds`` in all, in ``VISITS`` pages: each has its own phase to the screen's refresh."""
    recorder = app.record()
    shown: list[Sequence[Any]] = []  # as in WATCH_SCRIPT, but shown in monotonic seconds
    clock_error_s, inferences, inference_s = 0.0, 0, 0.0
    for _ in range(VISITS):
        page = watching_page(browser)
        page.goto(app.url)
        wait_for(page, "lookout.shown.length > 0")
        page.wait_for_timeout(1000 * WARM_UP_S)
        offset_s, error_s = _clock_offset(page)
        batches, busy_s = app.pipeline.batches, app.pipeline.run_seconds
        page.evaluate("lookout.shown.length = 0")
        page.wait_for_timeout(1000 * seconds / VISITS)
        visit = page.evaluate("lookout.shown")
        shown += [(index, shown_ms / 1000 + offset_s, *rest) for index, shown_ms, *rest in visit]
        inferences += app.pipeline.batches - batches
        inference_s += app.pipeline.run_seconds - busy_s
        clock_error_s = max(clock_error_s, error_s)
        page.context.close()
    latencies_ms = [
        1000 * (shown_s - recorder.captured_at[rtp])
        for _, shown_s, *_, rtp in shown
        if rtp in recorder.captured_at
    ]
    if not latencies_ms:
        raise LookoutError(f"the browser presented {len(shown)} pictures, none of them this camera's")
    return _Sample(
        latencies_ms,
        1000 * inference_s / max(inferences, 1),
        len(shown) / seconds,
        _misread(shown),
        1000 * clock_error_s,
    )


def _misread(shown: Sequence[Sequence[Any]]) -> int:
    """How many barcodes disagree with the RTP timestamp of the picture that they were read from.

    A canvas may already hold the next picture when a frame's callback runs, which would flatter the
    result; latency is therefore taken by timestamp, and the barcodes prove that timestamps and
    pictures belong together.

    Raises:
        LookoutError: most do not, so nothing measured here could be believed.
    """
    step = CLOCK_HZ // RATE
    bases = Counter((rtp - index * step) % 2**32 for index, *_, rtp in shown if index is not None)
    right = bases.most_common(1)[0][1] if bases else 0
    if right < len(shown) / 2:
        raise LookoutError(
            f"only {right} of {len(shown)} pictures carry the number that their timestamp says"
        )
    return len(shown) - right


def _clock_offset(page: Page) -> tuple[float, float]:
    """Seconds to add to ``performance.now()`` for ``time.monotonic()``, and the most it can be wrong by."""
    best: tuple[float, float] | None = None
    for _ in range(50):
        before = monotonic()
        page_s = page.evaluate("performance.now()") / 1000
        after = monotonic()
        error_s = (after - before) / 2
        if best is None or error_s < best[1]:
            best = (before + after) / 2 - page_s, error_s
    assert best is not None
    return best


def _await(condition: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    deadline = monotonic() + timeout_s
    while not condition():
        if monotonic() > deadline:
            raise LookoutError(f"{what} did not come within {timeout_s:.0f} s; the benchmark cannot go on")
        sleep(0.01)
