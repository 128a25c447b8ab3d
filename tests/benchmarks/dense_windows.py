"""How much quicker OverFeat's dense evaluation is than cropping its windows one by one, on the same picture.

    python -m tests.benchmarks.dense_windows --height 320 --width 416

Both give the same numbers, which is shown, too. Time is the process's own on one thread, so that a busy
machine does not disturb it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.lineage.dense import as_convolutions, fully_connected
from models.lineage.overfeat import Overfeat, OverfeatConfig


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, heads = _detector(arguments)
    images = model.normalise(
        torch.randint(0, 256, (1, arguments.height, arguments.width, 3), dtype=torch.uint8)
    )
    with torch.inference_mode():
        dense, dense_s = _timed(lambda: torch.cat(model(images), 2)[0], arguments.repeats)
        crops, crops_s = _timed(lambda: _one_by_one(model, heads, images), 1)
    figures = {
        "picture": f"{arguments.width}x{arguments.height}",
        "windows": len(model.windows),
        "dense_s": round(dense_s, 3),
        "crops_s": round(crops_s, 3),
        "ratio": round(crops_s / dense_s, 1),
        "largest_difference": (dense - crops).abs().max().item(),
        "spread": dense.std(0).min().item(),
    }
    print(json.dumps(figures, indent=1))


def _detector(arguments: argparse.Namespace) -> tuple[Overfeat, list[nn.Sequential]]:
    """The paper's fast network at one scale, and its heads before they became convolutions."""
    config = OverfeatConfig(
        names=tuple("abcdefghij"),
        input_height=arguments.height,
        input_width=arguments.width,
        backbone="overfeat_fast",
        backbone_width=arguments.channels,
        scales=(1.0,),
        window_height=3,
        window_width=3,
        hidden=arguments.hidden,
    )
    model = Overfeat(config).eval()
    inputs = model.backbone.trunk_channels * 3 * 3
    hidden = (arguments.hidden, arguments.hidden)
    heads = [fully_connected(inputs, hidden, outputs).eval() for outputs in (len(config.names) + 1, 4)]
    for head in heads:  # an untrained network's numbers would be too small to compare
        first = head[1]
        assert isinstance(first, nn.Linear)
        first.weight.data *= 100
    model.classifier, model.regressor = (as_convolutions(head, 3, 3, config.pool) for head in heads)
    return model, heads


def _one_by_one(model: Overfeat, heads: list[nn.Sequential], images: Tensor) -> Tensor:
    """Both heads' outputs (windows, outputs), from a crop of the pixels for each window."""
    rows = []
    for left, top, right, bottom in model.windows.int().tolist():
        cells = model.backbone.trunk(images[:, :, top:bottom, left:right])
        pooled = functional.max_pool2d(cells, model.config.pool)
        rows.append(torch.cat([head(pooled)[0] for head in heads]))
    return torch.stack(rows)


def _timed(work: Callable[[], Tensor], repeats: int) -> tuple[Tensor, float]:
    """What it gives, and the shortest of its times in seconds."""
    result = work()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        result = work()
        times.append(time.process_time() - started)
    return result, min(times)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--height", type=int, default=320)
    parser.add_argument("--width", type=int, default=416)
    parser.add_argument("--channels", type=float, default=1.0, help="as a part of the paper's")
    parser.add_argument(
        "--hidden", type=int, default=1024, help="of the fully connected layers; 3072 and 4096 there"
    )
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
