"""How many of a clip's people a model finds, and how many of its boxes are people, at some scores.

    python -m tests.benchmarks.clip_recall MODEL.onnx CLIP GT.txt [--every 3] [--scores 0.3 0.4 0.5]

Single frames, without tracking, through the runtime that serves cameras; a box is right at an IoU of 0.5 (by VOC's
rules), against the boxes that MOTChallenge has.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from export.convert import ensure_contract
from models.annotations import read_annotations
from models.coco import examples_of
from models.evaluate import Prediction
from models.voc_evaluate import curves
from stream.detector import Detector
from tests.benchmarks.clip_truth import CLASS, write_frames, write_truth


def run(model: Path, clip: Path, truth: Path, every: int, scores: Sequence[float]) -> dict[str, Any]:
    """Recall and precision of people, 0 to 1, by score."""
    detector = Detector(ensure_contract(model, print), "cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "frames"
        with av.open(str(clip)) as container:
            length = sum(1 for _ in container.decode(video=0))
        write_frames(clip, dict.fromkeys(range(0, length, every), folder))
        annotations = Path(name) / "truth.json"
        boxes = write_truth(truth, folder, annotations)
        file = read_annotations(annotations, folder, (CLASS,))
        curve = curves(file, (CLASS,), [_found(detector, each) for each in examples_of(file, folder)])[CLASS]
    counts = {score: int(np.searchsorted(-curve.scores, -score, side="right")) for score in scores}
    return {
        "frames": len(range(0, length, every)),
        "true_boxes": boxes,
        "AP50": round(curve.area(), 3),
        "at": {
            score: {
                "recall": round(float(curve.recall[k - 1]), 3),
                "precision": round(float(curve.precision[k - 1]), 3),
            }
            for score, k in counts.items()
            if k
        },
    }


def _found(detector: Detector, example: Any) -> Prediction:
    (found,) = detector.detect_images([example.read()], 0.05)
    people = found.classes == detector.spec.names.index(CLASS)
    return Prediction(example.image_id, found.boxes[people], found.scores[people], 0 * found.classes[people])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("clip", type=Path)
    parser.add_argument("truth", type=Path, metavar="GT.txt")
    parser.add_argument("--every", type=int, default=3, help="of so many frames one (default: 3)")
    parser.add_argument("--scores", type=float, nargs="+", default=[0.3, 0.4, 0.5])
    given = parser.parse_args(arguments)
    print(json.dumps(run(given.model, given.clip, given.truth, given.every, given.scores), indent=1))


if __name__ == "__main__":
    main()
