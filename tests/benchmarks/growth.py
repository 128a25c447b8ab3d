"""Figures of a soak's ``samples.csv``: how each quantity was at first, at last, and how it changed on the way.

Knows nothing of what happened meanwhile but the column ``idle``.
"""

from __future__ import annotations

import csv
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.sampling import PROCESS

WARM_UP = 0.1  # of the samples
GROWTH = (*PROCESS, "age_p50_ms", "age_p99_ms", "sent_age_p99_ms", "answer_ms")
IDLE = ("rss_mb", "uss_mb", "threads", "fds", "sockets")

Columns = dict[str, np.ndarray[Any, np.dtype[np.float64]]]


def read(path: Path) -> Columns:
    """Every column, nan where it is empty."""
    with path.open(newline="") as file:
        names, *rows = list(csv.reader(file)) or [[]]
    table = np.array([[float(value or "nan") for value in row] for row in rows]).reshape(
        len(rows), len(names)
    )
    return {name: table[:, number] for number, name in enumerate(names)}


def figures(path: Path) -> dict[str, Any]:
    """Medians of the first and the last fifth after the warm-up and slopes per hour (least squares).

    ``idle`` has a median for each quiet stretch; ``returned``: the last is not above the first, and memory is not
    more than 5 % above.
    """
    columns = read(path)
    count = len(columns["elapsed_s"])
    settled = {name: values[int(count * WARM_UP) :] for name, values in columns.items()}
    names = sorted(name.removeprefix("fps_") for name in columns if name.startswith("fps_"))
    return {
        "seconds": round(float(columns["elapsed_s"][-1]), 1) if count else 0.0,
        "samples": count,
        "growth": {name: _growth(settled["elapsed_s"], settled[name]) for name in GROWTH},
        "idle": _idle(settled),
        "cameras": {name: _camera(settled, name) for name in names},
        "most_viewers": _or_none(np.nanmax, columns["viewers"]),
        "dropped": _or_none(np.nanmax, columns["dropped"]),
        "not_sent": _or_none(np.nanmax, columns["not_sent"]),
    }


def _growth(elapsed_s: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> dict[str, float | None]:
    known = np.isfinite(values)
    elapsed_s, values = elapsed_s[known], values[known]
    fifth = max(1, len(values) // 5)
    slope = np.polyfit(elapsed_s / 3600, values, 1)[0] if len(values) > 2 else np.nan
    return {
        "first": _or_none(np.median, values[:fifth]),
        "last": _or_none(np.median, values[-fifth:]),
        "per_hour": _or_none(np.median, np.array([slope])),
    }


def _idle(columns: Columns) -> dict[str, Any]:
    stretches = [
        [number for number, _ in stretch]
        for idle, stretch in groupby(enumerate(columns["idle"]), key=lambda each: each[1] == 1)
        if idle
    ]
    levels = {
        name: [_or_none(np.nanmedian, columns[name][stretch]) for stretch in stretches] for name in IDLE
    }
    if len(stretches) < 2:
        return {**levels, "returned": None}
    returned = {
        name: level[-1] <= level[0] * (1.05 if name.endswith("_mb") else 1) for name, level in levels.items()
    }
    return {**levels, "returned": returned}


def _camera(columns: Columns, name: str) -> dict[str, float | None]:
    return {
        "fps": _or_none(np.nanmedian, columns[f"fps_{name}"]),
        "detect_fps": _or_none(np.nanmedian, columns[f"detect_fps_{name}"]),
        "reconnects": _or_none(np.nanmax, columns[f"reconnects_{name}"]),
        "missed": _or_none(np.nanmax, columns[f"missed_{name}"]),
    }


def _or_none(of: Any, values: np.ndarray[Any, Any]) -> float | None:
    known = values[np.isfinite(values)]
    return round(float(of(known)), 3) if len(known) else None


if __name__ == "__main__":
    import json

    print(json.dumps(figures(Path(sys.argv[1])), indent=1))
