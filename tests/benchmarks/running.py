"""What the long benchmarks share: a real ``lookout watch --config``, its API, its end, and where results go.

Knows nothing of what is measured.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx

from tests.browser.live import App, running

Figures = dict[str, Any]


@contextmanager
def watching(config: Mapping[str, Any], out: Path) -> Iterator[App]:
    """The app on a free port, as ``config`` says; its configuration and its log are left in ``out``."""
    path = out / "lookout.yaml"
    path.write_text(json.dumps(config, indent=1))  # which is YAML, too
    with running("--config", str(path), log=out / "lookout.log") as app:
        yield app


def asking(app: App) -> httpx.Client:
    """A client of its API that keeps its connection and looks at no proxy."""
    return httpx.Client(base_url=app.url, timeout=10, trust_env=False)


def cameras(http: httpx.Client) -> dict[str, dict[str, Any]]:
    """``/api/cameras`` by name; raises httpx.HTTPError."""
    return {camera["id"]: camera for camera in http.get("/api/cameras").raise_for_status().json()}


def ending(app: App) -> Figures:
    """How the app ended, once it has: its exit code, and the tracebacks in its log."""
    with app.log.open(errors="replace") as log:
        tracebacks = sum(line.startswith("Traceback") or '"Traceback' in line for line in log)
    return {"exit_code": app.process.returncode, "tracebacks": tracebacks}


def arguments(what: str, seconds: float) -> argparse.Namespace:
    """``--seconds``, ``--json``, ``--out`` (made, if it is not there) and ``--seed`` of a command line."""
    name = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(prog=f"python -m tests.benchmarks.{name}", description=what)
    parser.add_argument("--seconds", type=float, default=seconds, help=f"default {seconds:g}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go, too")
    parser.add_argument("--out", type=Path, default=Path(f"runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}"))
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if given.seconds <= 0:
        parser.error(f"--seconds {given.seconds:g}: expected more than 0")
    given.out.mkdir(parents=True, exist_ok=True)
    return given


def told(figures: Figures, given: argparse.Namespace) -> int:
    """Print and write the figures; the exit code: 1 where the app died or logged a traceback."""
    text = json.dumps(figures, indent=1)
    print(text)
    for path in filter(None, (given.out / "figures.json", given.json)):
        path.write_text(f"{text}\n")
    print(f"more in {given.out}", file=sys.stderr)
    return int(figures["ending"] != {"exit_code": 0, "tracebacks": 0})


def end_as_with_ctrl_c() -> None:
    """Have SIGTERM end a run with what it has, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def until(holds: Callable[[], object], timeout_s: float) -> bool:
    """Wait for something; False: it did not happen in time."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
