"""How long files take on this machine, one thread, run in turn so that its moods fall on all alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

Feeds = Mapping[str, npt.NDArray[np.generic]]

_WARM_UP = 3


def run_seconds(files: Sequence[Path], feeds: Sequence[Sequence[Feeds]], seconds: float) -> list[list[float]]:
    """Wall seconds of each run of each file.

    Args:
        files: ONNX files.
        feeds: of each file, what it is given, as many for all of them; one after the other, again and again.
        seconds: how long to measure, all files together.

    Returns:
        As many figures for each file; those of one index were measured one right after the other.
    """
    sessions = [_session(file) for file in files]
    for session, inputs in zip(sessions, feeds, strict=True):
        for given in [*inputs][:_WARM_UP]:
            session.run(None, dict(given))
    taken: list[list[float]] = [[] for _ in files]
    end, turn = perf_counter() + seconds, 0
    while perf_counter() < end or turn < _WARM_UP:
        order = range(len(files)) if turn % 2 else reversed(range(len(files)))
        for index in order:
            given = dict(feeds[index][turn % len(feeds[index])])
            started = perf_counter()
            sessions[index].run(None, given)
            taken[index].append(perf_counter() - started)
        turn += 1
    return taken


def speed_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times faster, as the median over runs measured side by side."""
    return median(one / other for one, other in zip(slow, fast, strict=True))


def _session(file: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
