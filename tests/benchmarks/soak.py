"""Does anything grow? A real ``lookout watch`` for hours: four cameras, of which one dies again and again, viewers
that come and go, a camera that is added and removed, and a monitoring system that asks.

    python -m tests.benchmarks.soak [--seconds 7200] [--out FOLDER] [--json FILE]

All of it goes in rounds, each of which ends in quiet: no viewers, every camera up. What the app holds then is its
idle level. Every few seconds it is sampled from outside (``sampling.py``); rows go to ``samples.csv``,
their figures (``growth.py``) to ``figures.json``, a plot (``plot.py``) to ``soak.png``. Ctrl-C ends it with
what there is. It fails where the app died or logged a traceback; whether a slope is flat is for the reader.
"""

from __future__ import annotations

import csv
import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil

from stream.sources import demo_clip
from stream.webrtc.sessions import SILENCE_TIMEOUT_S
from tests.benchmarks import growth, plot, viewers
from tests.benchmarks.running import Figures, arguments, asking, end_as_with_ctrl_c, ending, told, watching
from tests.benchmarks.sampling import Row, Sampler
from tests.browser.live import App
from tests.rtsp_server import RtspServer, missing, record

SECONDS = 7200.0
SAMPLE_S = 5.0
ROUND_S, LEAST_ROUND_S = 600.0, 10.0
IDLE_AFTER_S = SILENCE_TIMEOUT_S + 2.0  # those who vanished are noticed by then
CAMERAS = ("door", "yard", "demo", "pattern")
EXTRA = "extra"
EXTRA_CONFIG = {"source": "synthetic:320x180@10", "detect_fps": 2}
# In shares of a round. The last quarter is quiet.
COME, DIES, BACK, ADDED, DIES_AGAIN, BACK_AGAIN, REMOVED, LEAVE = 0.0, 0.15, 0.2, 0.25, 0.4, 0.42, 0.6, 0.75

Event = tuple[float, Callable[[], None]]  # seconds after the start, and what happens then


class Life:
    """What happens to the app: every event when it is due, in the thread that asks."""

    def __init__(
        self, app: App, http: httpx.Client, camera: RtspServer, out: Path, seconds: float, seed: int
    ):
        self.happened: Counter[str] = Counter()
        self._url = app.url
        self._http = http
        self._camera = camera
        self._visits = out / "visits.jsonl"
        self._seed = seed
        self._viewers: viewers.Viewers | None = None
        self.round_s = min(ROUND_S, max(seconds / 4, LEAST_ROUND_S))
        rounds = math.ceil(seconds / self.round_s)
        self._events = [event for number in range(rounds) for event in self._round(number)]

    def go_on(self, elapsed_s: float) -> None:
        """Do what is due."""
        while self._events and self._events[0][0] <= elapsed_s:
            _, event = self._events.pop(0)
            try:
                event()
            except httpx.HTTPError as error:
                self.happened[f"{type(error).__name__} when {event.__name__.strip('_')}"] += 1

    def quiet_s(self, elapsed_s: float) -> float:
        """For how long it has been quiet; negative: it is not."""
        return elapsed_s % self.round_s - LEAVE * self.round_s

    def close(self) -> None:
        if self._viewers is not None:
            self._viewers.leave()

    def _round(self, number: int) -> list[Event]:
        # Every third crowd is killed with all its viewers.
        leave = self._crowd_killed if number % 3 == 2 else self._crowd_leaves
        events = (
            (COME, self._crowd_comes),
            (DIES, self._camera_dies),
            (BACK, self._camera_returns),
            (ADDED, self._camera_added),
            (DIES_AGAIN, self._camera_dies),
            (BACK_AGAIN, self._camera_returns),
            (REMOVED, self._camera_removed),
            (LEAVE, leave),
        )
        return [((number + share) * self.round_s, event) for share, event in events]

    def _crowd_comes(self) -> None:
        self.happened["crowds"] += 1
        seed = self._seed * 1000 + self.happened["crowds"]
        self._viewers = viewers.Viewers(self._url, [*CAMERAS, EXTRA], self._visits, seed)

    def _crowd_leaves(self) -> None:
        if self._viewers is not None:
            self._viewers.leave()

    def _crowd_killed(self) -> None:
        self.happened["crowds killed"] += 1
        if self._viewers is not None:
            self._viewers.kill()

    def _camera_dies(self) -> None:
        self.happened["camera killed"] += 1
        self._camera.stop()

    def _camera_returns(self) -> None:
        self._camera.restart()

    def _camera_added(self) -> None:
        self._http.put(f"/api/cameras/{EXTRA}", json=EXTRA_CONFIG).raise_for_status()
        self.happened["camera added"] += 1

    def _camera_removed(self) -> None:
        self._http.delete(f"/api/cameras/{EXTRA}").raise_for_status()
        self.happened["camera removed"] += 1


def run(seconds: float, out: Path, *, sample_s: float = SAMPLE_S, seed: int = 1) -> Figures:
    """Two RTSP cameras (one over UDP), a clip and a pattern for ``seconds``; figures, and files in ``out``."""
    with ExitStack() as stack:
        door, yard = (
            stack.enter_context(_rtsp(out, *kind)) for kind in (("door", 640, 15), ("yard", 426, 12))
        )
        app = stack.enter_context(watching(_config(door, yard), out))
        http = stack.enter_context(asking(app))
        life = Life(app, http, door, out, seconds, seed)
        stack.callback(life.close)
        sampler = Sampler(app.process.pid, http, [*CAMERAS, EXTRA])
        with suppress(KeyboardInterrupt):  # what there is by then counts
            _record(app, sampler, life, seconds, out / "samples.csv", sample_s)
    figures = growth.figures(out / "samples.csv")
    plot.draw(out / "samples.csv", out / "soak.png")
    return {
        **figures,
        "happened": dict(life.happened),
        "requests_refused": dict(sampler.refused),
        "viewers": viewers.summary(out / "visits.jsonl"),
        "ending": ending(app),
    }


def _rtsp(out: Path, name: str, width: int, rate: int) -> RtspServer:
    height = width * 9 // 16 // 2 * 2
    clip = record(demo_clip(), out / f"{name}.avi", width=width, height=height, rate=rate)
    return RtspServer(clip, as_is=True)


def _config(door: RtspServer, yard: RtspServer) -> dict[str, Any]:
    """Four cameras that two cores hold easily."""
    sources = {
        "door": {"source": door.url},
        "yard": {"source": yard.url, "transport": "udp"},
        "demo": {"source": "demo"},
        "pattern": {"source": "synthetic:640x360@15"},
    }
    return {"cameras": {name: {**source, "detect_fps": 3} for name, source in sources.items()}}


def _record(app: App, sampler: Sampler, life: Life, seconds: float, path: Path, sample_s: float) -> None:
    """Sample until the time is over or the app has ended; every row is on the disk at once."""
    with path.open("w", newline="") as file:
        rows = csv.DictWriter(file, sampler.columns, restval="", extrasaction="ignore")
        rows.writeheader()
        sampler.sample()  # what comes after is counted from here
        began, due_s = time.monotonic(), sample_s
        while (elapsed_s := time.monotonic() - began) < seconds and app.process.poll() is None:
            life.go_on(elapsed_s)
            if elapsed_s >= due_s:
                due_s = elapsed_s + sample_s
                with suppress(psutil.NoSuchProcess, FileNotFoundError):  # it has ended
                    row = sampler.sample()
                    rows.writerow(
                        {name: f"{value:.6g}" for name, value in _marked(row, elapsed_s, life).items()}
                    )
                    file.flush()
            time.sleep(min(0.2, sample_s))


def _marked(row: Row, elapsed_s: float, life: Life) -> Row:
    """With when it was, and whether the app had nothing to do but its four cameras."""
    is_up = all(row.get(f"live_{name}") for name in CAMERAS)
    idle = row.get("viewers") == 0 and is_up and life.quiet_s(elapsed_s) > IDLE_AFTER_S
    return {**row, "elapsed_s": elapsed_s, "idle": idle}


def main() -> int:
    given = arguments(str(__doc__).partition("\n")[0], SECONDS)
    if lacks := missing() or plot.missing():
        print(lacks, file=sys.stderr)
        return 2
    end_as_with_ctrl_c()
    return told(run(given.seconds, given.out, seed=given.seed), given)


if __name__ == "__main__":
    sys.exit(main())
