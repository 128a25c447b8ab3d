"""How long models take on this machine, run in turn so that its moods fall on all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import numpy.typing as npt
import onnxruntime

Feeds = Mapping[str, npt.NDArray[np.generic]]
Model = Callable[[Feeds], object]

_WARM_UP = 3


def run_seconds(
    models: Sequence[Model], feeds: Sequence[Sequence[Feeds]], seconds: float
) -> list[list[float]]:
    """Wall seconds of each run of each model.

    Args:
        models: what runs them, such as ``on_one_core``.
        feeds: of each model, what it is given, as many for all of them; one after the other, again and again.
        seconds: how long to measure, all models together.

    Returns:
        As many figures for each model; those of one index were measured one right after the other.
    """
    for model, inputs in zip(models, feeds, strict=True):
        for given in [*inputs][:_WARM_UP]:
            model(given)
    taken: list[list[float]] = [[] for _ in models]
    end, turn = perf_counter() + seconds, 0
    while perf_counter() < end or turn < _WARM_UP:
        order = range(len(models)) if turn % 2 else reversed(range(len(models)))
        for index in order:
            given = feeds[index][turn % len(feeds[index])]
            started = perf_counter()
            models[index](given)
            taken[index].append(perf_counter() - started)
        turn += 1
    return taken


def speed_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times faster, as the median over runs measured side by side."""
    return median(one / other for one, other in zip(slow, fast, strict=True))


def on_one_core(file: Path) -> Model:
    """An ONNX file on the CPU, in one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda given: session.run(None, dict(given))
