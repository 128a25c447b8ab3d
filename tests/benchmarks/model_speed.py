"""How long a model takes, over another, in one process and in turn: milliseconds a picture, and the median ratio.

    python -m tests.benchmarks.model_speed MODEL.onnx OVER.onnx [--threads 2] [--seconds 30]

The files as they are, of one picture of noise, by onnxruntime on the CPU: what a file has of preparing pixels and
decoding boxes is included, suppression of boxes is in none.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

from export.speed import Feeds, Model, run_seconds, speed_ratio


def run(model: Path, over: Path, threads: int, seconds: float) -> dict[str, Any]:
    """Milliseconds of both, and how many times as long ``model`` takes."""
    opened = [_opened(path, threads) for path in (model, over)]
    taken = run_seconds([each[0] for each in opened], [[each[1]] for each in opened], seconds)
    return {
        "runs": len(taken[0]),
        "ms": {
            str(path): round(1000 * median(each), 2) for path, each in zip((model, over), taken, strict=True)
        },
        "ratio": round(speed_ratio(taken[0], taken[1]), 3),
    }


def _opened(path: Path, threads: int) -> tuple[Model, Feeds]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (wanted,) = session.get_inputs()
    shape = [side if isinstance(side, int) else 1 for side in wanted.shape]
    noise = np.random.default_rng(0).integers(0, 256, shape)
    given = {wanted.name: noise.astype(np.uint8 if wanted.type == "tensor(uint8)" else np.float32)}
    return lambda feeds: session.run(None, dict(feeds)), given


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("over", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30.0)
    given = parser.parse_args(arguments)
    print(json.dumps(run(given.model, given.over, given.threads, given.seconds), indent=1))


if __name__ == "__main__":
    main()
