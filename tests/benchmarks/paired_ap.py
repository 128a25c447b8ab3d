"""Whether one model is better than another, or only luckier in its pictures: a paired bootstrap.

    python -m tests.benchmarks.paired_ap MODEL OTHER ANNOTATIONS.json IMAGES [--resamples 1000]

Both judge every picture once. Then as many pictures are drawn from them with replacement, again and again, and both
are measured on the same draw (Efron 1979; pairing removes what makes a draw hard or easy for both). It tells of these
pictures' number alone: not of another training, nor of values that were chosen on them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from export.catalogue import resolve_model
from export.convert import ensure_contract
from models.annotated import CocoFile
from models.coco import examples_of, read_coco
from models.evaluate import Metrics, Prediction, ground_truth, judged
from stream.detector import Detector

SCORE_FLOOR = 0.001
FIGURES = ("AP50", "AP")


def run(models: Sequence[str], annotations: Path, images: Path, resamples: int) -> dict[str, Any]:
    """Each figure of both, and of the first less the second: ``low`` and ``high`` hold 95 of 100 draws, and
    ``above`` is the share of draws in which the first is better."""
    detectors = [Detector(ensure_contract(resolve_model(model), _say), "cpu") for model in models]
    names = detectors[0].spec.names
    if any(detector.spec.names != names for detector in detectors):
        raise SystemExit(
            f"the models have other classes: {' and '.join(map(str, (d.spec.names for d in detectors)))}"
        )
    file = read_coco(annotations, names)
    examples = examples_of(file, images)
    found = [
        [_found(detector, example) for example in _shown(examples, model)]
        for detector, model in zip(detectors, models, strict=True)
    ]
    truth = ground_truth(file, names)
    whole = [judged(truth, names, predictions) for predictions in found]
    rng = np.random.default_rng(0)
    count = len(file.pictures)
    draws = [
        _drawn(file, names, found, rng.integers(count, size=count))
        for _ in _shown(range(resamples), "drawing")
    ]
    return {figure: _compared(figure, whole, draws) for figure in FIGURES}


def _found(detector: Detector, example: Any) -> Prediction:
    (found,) = detector.detect_images([example.read()], SCORE_FLOOR)
    return Prediction(example.image_id, found.boxes, found.scores, found.classes)


def _drawn(file: CocoFile, names: Sequence[str], found: list[list[Prediction]], rows: Any) -> list[Metrics]:
    """Both models on pictures ``rows``, of which each is another picture however often it was drawn."""
    pictures = tuple(replace(file.pictures[row], image_id=number) for number, row in enumerate(rows))
    annotations = tuple(
        replace(each, image_id=number)
        for number, row in enumerate(rows)
        for each in file.annotations
        if each.image_id == file.pictures[row].image_id
    )
    truth = ground_truth(replace(file, pictures=pictures, annotations=annotations), names)
    return [
        judged(
            truth,
            names,
            [replace(predictions[row], image_id=number) for number, row in enumerate(rows)],
        )
        for predictions in found
    ]


def _compared(figure: str, whole: list[Metrics], draws: list[list[Metrics]]) -> dict[str, Any]:
    first, second = (getattr(each, figure) for each in whole)
    apart = np.array([getattr(a, figure) - getattr(b, figure) for a, b in draws])
    low, high = np.quantile(apart, [0.025, 0.975])
    return {
        "models": [round(first, 4), round(second, 4)],
        "difference": round(first - second, 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "above": round(float((apart > 0).mean()), 3),
    }


def _shown(things: Sequence[Any], what: str) -> Any:
    return track(things, what, console=Console(stderr=True), transient=True)


def _say(text: str) -> None:
    Console(stderr=True).print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs=2, metavar="MODEL", help="name or .onnx file")
    parser.add_argument("annotations", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--resamples", type=int, default=1000)
    given = parser.parse_args()
    print(json.dumps(run(given.models, given.annotations, given.images, given.resamples), indent=1))
