"""A running app seen from outside: its process by psutil, its cameras by ``/api`` and ``/metrics``.

One ``Sampler.sample`` is one row of numbers; what could not be had is left out. Knows nothing of what the app
is put through.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import httpx2 as httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.benchmarks.running import cameras

PROCESS = ("rss_mb", "uss_mb", "threads", "fds", "sockets", "cpu_percent")
WHOLE = (
    "viewers",
    "age_p50_ms",
    "age_p99_ms",
    "sent_age_p50_ms",
    "sent_age_p99_ms",
    "dropped",
    "not_sent",
    "answer_ms",
)
EACH = ("fps", "detect_fps", "dropped", "missed", "reconnects", "live")
_COUNTED = {"fps": "decoded", "detect_fps": "detected"}  # rates by what is counted

Row = dict[str, float]
Buckets = dict[float, float]  # observations by inclusive upper bound, not cumulative


class Sampler:
    """Rows of a process and its cameras; rates and quantiles are of the time since the row before.

    Args:
        names: of the cameras that get columns; one that is not there leaves them empty.
    """

    def __init__(self, pid: int, http: httpx.Client, names: Sequence[str]) -> None:
        self.columns = ["elapsed_s", "idle", *PROCESS, *WHOLE]
        self.columns += [f"{what}_{name}" for name in names for what in EACH]
        self.refused: Counter[str] = Counter()  # requests without an answer, by why
        self._process = psutil.Process(pid)
        self._http = http
        self._names = names
        self._counted: dict[str, float] = {}
        self._buckets: dict[str, dict[tuple[str, float], float]] = {}
        self._at = time.monotonic()

    def sample(self) -> Row:
        """Raises psutil.NoSuchProcess where the process has ended."""
        row = of_process(self._process)
        began = time.monotonic()
        try:
            row |= self._of_cameras(began - self._at)
            row |= self._of_metrics(self._http.get("/metrics").raise_for_status().text)
            for probe in ("/healthz", "/readyz"):
                self._http.get(probe).raise_for_status()
            row["answer_ms"] = 1000 * (time.monotonic() - began)
        except httpx.HTTPError as error:
            self.refused[type(error).__name__] += 1
        self._at = began
        return row

    def _of_cameras(self, seconds: float) -> Row:
        row: Row = {"viewers": 0, "dropped": 0}
        for name, status in cameras(self._http).items():
            row["viewers"] += status["viewers"]
            row["dropped"] += status["dropped"]
            if name not in self._names:
                continue
            for rate, counter in _COUNTED.items():
                row[f"{rate}_{name}"] = self._grown(f"{counter}/{name}", status[counter]) / seconds
            row |= {f"{what}_{name}": status[what] for what in ("dropped", "missed", "reconnects")}
            row[f"live_{name}"] = float(status["state"] == "live")
        return row

    def _of_metrics(self, text: str) -> Row:
        row: Row = {"not_sent": 0}
        counts: dict[str, dict[tuple[str, float], float]] = defaultdict(dict)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = sample.labels
                if sample.name == "lookout_frame_age_seconds_bucket":
                    counts[labels["stage"]][labels["camera"], float(labels["le"])] = sample.value
                elif sample.name == "lookout_frames_dropped_total" and labels["stage"] == "send":
                    row["not_sent"] += sample.value
        for stage, prefix in (("detect", "age"), ("send", "sent_age")):
            ages = observed(self._buckets.get(stage, {}), counts[stage])
            self._buckets[stage] = counts[stage]
            for percent in (50, 99):
                row[f"{prefix}_p{percent}_ms"] = 1000 * quantile(ages, percent / 100)
        return row

    def _grown(self, what: str, count: float) -> float:
        """By how much a counter grew; one that began anew grew by all of it."""
        before = self._counted.get(what, 0.0)
        self._counted[what] = count
        return count - before if count >= before else count


def of_process(process: psutil.Process) -> Row:
    """Memory in MB, and what is open. CPU is in percent of one core since the call before."""
    with process.oneshot():
        memory = process.memory_full_info()
        return {
            "rss_mb": memory.rss / 1e6,
            "uss_mb": memory.uss / 1e6,
            "threads": process.num_threads(),
            "cpu_percent": process.cpu_percent(),
            **_open(process.pid),
        }


def _open(pid: int) -> Row:
    """File descriptors, and how many of them are sockets."""
    fds, sockets = 0, 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            sockets += os.readlink(entry).startswith("socket:")
            fds += 1
    return {"fds": fds, "sockets": sockets}


def observed(before: Mapping[tuple[str, float], float], after: Mapping[tuple[str, float], float]) -> Buckets:
    """What all cameras' histograms counted in between, from cumulative counts by camera and bound."""
    each: dict[str, Buckets] = defaultdict(dict)
    for (camera, bound), count in sorted(after.items()):
        each[camera][bound] = count - before.get((camera, bound), 0.0)
    total: Buckets = defaultdict(float)
    for cumulative in each.values():
        below = 0.0
        for bound, count in cumulative.items():
            total[bound] += count - below
            below = count
    return dict(total)


def quantile(buckets: Buckets, share: float) -> float:
    """As Prometheus's ``histogram_quantile``: linear within a bucket; nan where nothing was observed.

    Above the last finite bound it is that bound.
    """
    rank, below, lower = share * sum(buckets.values()), 0.0, 0.0
    if not rank:
        return math.nan
    for bound, count in sorted(buckets.items()):
        if below + count >= rank and count:
            return lower if math.isinf(bound) else lower + (bound - lower) * (rank - below) / count
        below, lower = below + count, bound
    return math.nan
