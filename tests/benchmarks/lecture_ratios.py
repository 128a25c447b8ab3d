"""Seconds a picture of R-CNN, Fast and Faster R-CNN on one backbone, proposals included, and how they compare.

    python -m tests.benchmarks.lecture_ratios PICTURE... [--backbone vgg16] [--crop 224] [--proposals 2000]
        [--input 416x320]

The lecture's backbone and numbers by default; on one core, each detector as one graph in ONNX Runtime. Nothing is
trained and nothing judged: how long a network takes does not depend on its weights. R-CNN looks at the first picture
alone, for a quarter of an hour and with 9 GB of memory; the others at all of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import onnx

from export.speed import on_one_core
from export.torch_export import checkpoint_body
from models.checkpoint import save_checkpoint
from models.detector import Detector
from models.letterbox import Letterbox
from models.lineage.fast_rcnn import FastRcnn, FastRcnnConfig
from models.lineage.faster_rcnn import FasterRcnn, FasterRcnnConfig
from models.lineage.proposals import ProposalRule
from models.lineage.rcnn import Rcnn, RcnnConfig


class Placed(NamedTuple):
    """A picture as a detector gets it."""

    image: npt.NDArray[np.uint8]
    """uint8 (1, H, W, 3)."""
    proposals: npt.NDArray[np.float32]
    """float32 (1, R, 4)."""
    proposing_s: float


def run(
    pictures: Sequence[Path], backbone: str, crop: int, rule: ProposalRule, height: int, width: int
) -> dict[str, Any]:
    """Medians by family: ``seconds`` a picture, ``network_s`` without proposing, ``speed_up`` over R-CNN."""
    size: dict[str, Any] = {
        "names": ("person",),
        "input_height": height,
        "input_width": width,
        "backbone": backbone,
    }
    placed = [_placed(path, rule, height, width) for path in pictures]
    proposing_s = median(each.proposing_s for each in placed)
    network_s = {
        "rcnn": _seconds(Rcnn(RcnnConfig(**size, proposals=str(rule), crop=crop)), placed[:1]),
        "fast-rcnn": _seconds(FastRcnn(FastRcnnConfig(**size, proposals=str(rule))), placed),
        "faster-rcnn": _seconds(FasterRcnn(FasterRcnnConfig(**size)), placed),
    }
    seconds = {
        name: each + (0.0 if name == "faster-rcnn" else proposing_s) for name, each in network_s.items()
    }
    return {
        "backbone": backbone,
        "crop": crop,
        "proposals": str(rule),
        "proposing_s": round(proposing_s, 3),
        "network_s": {name: round(each, 3) for name, each in network_s.items()},
        "seconds": {name: round(each, 3) for name, each in seconds.items()},
        "speed_up": {name: round(seconds["rcnn"] / each, 1) for name, each in seconds.items()},
    }


def _placed(path: Path, rule: ProposalRule, height: int, width: int) -> Placed:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise SystemExit(f"{path}: is no picture")
    letterbox = Letterbox.fit(picture.shape[1], picture.shape[0], width, height)
    cv2.setNumThreads(1)
    image = letterbox.apply(picture)
    started = perf_counter()
    proposals = rule.inside(image, letterbox)
    return Placed(image[None], proposals[None], perf_counter() - started)


def _seconds(model: Detector, placed: Sequence[Placed]) -> float:
    with TemporaryDirectory(prefix="lookout-ratios-") as folder:
        checkpoint, file = Path(folder, "untrained.pt"), Path(folder, "untrained.onnx")
        save_checkpoint(checkpoint, model.eval(), 0, None)
        onnx.save(checkpoint_body(checkpoint, None, None).model, file)
        once = on_one_core(file)
        seconds = []
        for each in placed:
            given: dict[str, npt.NDArray[np.generic]] = {"images": each.image}
            if model.takes_proposals:
                given["proposals"] = each.proposals
            started = perf_counter()
            once(given)
            seconds.append(perf_counter() - started)
    return median(seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--proposals", type=int, default=2000)
    parser.add_argument("--input", default="416x320", help="WIDTHxHEIGHT")
    given = parser.parse_args()
    width, height = map(int, given.input.split("x"))
    rule = ProposalRule("selective-search", given.proposals)
    print(json.dumps(run(given.pictures, given.backbone, given.crop, rule, height, width), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
