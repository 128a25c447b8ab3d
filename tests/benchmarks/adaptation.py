"""What a camera's own detector is worth: AP50 before and after learning from a teacher's labels of that camera.

    python -m tests.benchmarks.adaptation CLIP GT.txt --teacher yolox_nano.onnx [--frames 200] [--epochs 20] [--out DIR]

Pictures of the clip's first half are labelled by the teacher alone (``lookout label``), the embedded model is trained
on them (``lookout train``) and exported, and both are measured on the second half against its true boxes of people, as
MOTChallenge has them. What is trained is thrown away: it stays in ``--out``. The clip must be one that may be learned
from.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from ruamel.yaml import YAML

from export.catalogue import DEFAULT, resolve_model
from export.convert import ensure_contract, export_model
from models.evaluate import Metrics
from models.train import train
from stream.detector import Detector
from stream.evaluate import evaluate
from stream.label import Wishes, label_to_files
from tests.benchmarks.clip_truth import CLASS, write_frames, write_truth

TESTED = 100
"""Pictures of the second half at most, and no more than are learned from."""
SCORE = 0.001


def run(clip: Path, truth: Path, teacher: Path, out: Path, frames: int, epochs: int) -> dict[str, Any]:
    """AP50 of people, 0 to 1, of the embedded model before and after, and of the teacher."""
    began = time.monotonic()
    learned, tested = (out / name for name in ("first", "second"))
    count = cut(clip, learned, tested, frames)
    boxes = write_truth(truth, tested, out / "truth.json")
    model = Detector(ensure_contract(teacher, _say))
    labels = out / "labels.json"
    wishes = Wishes(names=(CLASS,))
    label_to_files(learned, model, model.spec.names, wishes, labels, out / "sheet.jpg", _say)
    adapted = out / "adapted.onnx"
    export_model(train(write_recipe(out, labels, learned, epochs)), adapted, pictures=learned, say=_say)
    figures = {
        name: _ap50(path, out / "truth.json", tested)
        for name, path in (("before", resolve_model(DEFAULT)), ("after", adapted), ("teacher", model.path))
    }
    return {
        **figures,
        "gain_points": 100 * (figures["after"] - figures["before"]),
        "pictures_learned": count,
        "pictures_tested": len(list(tested.glob("*.jpg"))),
        "true_boxes": boxes,
        "epochs": epochs,
        "seconds": time.monotonic() - began,
    }


def cut(clip: Path, learned: Path, tested: Path, frames: int) -> int:
    """Write evenly chosen pictures of both halves, called by their number from 1; how many of the first."""
    with av.open(str(clip)) as container:
        length = sum(1 for _ in container.decode(video=0))
    half = length // 2
    chosen = dict.fromkeys(_even(0, half, frames), learned)
    chosen |= dict.fromkeys(_even(half, length, min(TESTED, frames)), tested)
    write_frames(clip, chosen)
    return sum(folder == learned for folder in chosen.values())


def write_recipe(out: Path, labels: Path, pictures: Path, epochs: int) -> Path:
    """``configs/train/camera.yaml``, for these pictures."""
    yaml = YAML(typ="safe", pure=True)
    recipe = yaml.load(Path("configs/train/camera.yaml").read_text(encoding="utf-8"))
    recipe |= {"name": f"adapted-{time.time_ns()}", "names": [CLASS], "runs": str(out / "runs"), "workers": 0}
    recipe["data"]["train"] = [{"annotations": str(labels), "images": str(pictures)}]
    recipe["schedule"]["epochs"] = epochs
    path = out / "recipe.yaml"
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(recipe, file)
    return path


def _even(first: int, last: int, count: int) -> list[int]:
    return sorted(set(np.linspace(first, last - 1, min(count, last - first)).astype(int).tolist()))


def _ap50(model: Path, truth: Path, images: Path) -> float:
    found = evaluate(Detector(model, "cpu"), truth, images, SCORE)
    assert isinstance(found, Metrics)
    return found.per_class_AP50[CLASS]


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures as one JSON object, the last line on standard output."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clip", type=Path)
    parser.add_argument(
        "truth", type=Path, metavar="GT.txt", help="its boxes of people, as MOTChallenge has them"
    )
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=200, help="pictures to learn from (default: 200)")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/adaptation"))
    options = parser.parse_args(arguments)
    figures = run(options.clip, options.truth, options.teacher, options.out, options.frames, options.epochs)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
