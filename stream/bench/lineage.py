"""The lecture's table with this machine's figures: seconds a picture and AP of each system of the lineage.

Trains nothing: takes the checkpoints of the recipes in ``configs/train/lineage/``, exports those whose file is
missing or older than they are, and runs them, and lookout's embedded model, on annotated pictures as the live app
would, the search for proposals included. Systems without a checkpoint can be taken from an earlier run, such as
``docs/lineage.json``. Beside it stand the lecture's own: CS231n 2016, lecture 8, for VGG-16 on PASCAL VOC 2007 and
a GPU of its time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container
from dataclasses import asdict, dataclass
from io import StringIO
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from export.catalogue import DEFAULT, resolve_model
from export.convert import export_model
from models.bootstrap import drawn_ap50, lead
from models.coco import Example, examples_of, read_coco
from models.evaluate import Prediction, ground_truth, judged
from stream.detector import Detector
from stream.device import Device
from stream.errors import UsageError

SYSTEMS = {
    "localization": "regression to six boxes",
    "hog": "HOG and a linear SVM",
    "dpm": "deformable parts",
    "overfeat": "OverFeat",
    "rcnn": "R-CNN",
    "fast_rcnn": "Fast R-CNN",
    "faster_rcnn": "Faster R-CNN",
    "yolo_v1": "YOLO",
}
"""By the key of its figures; its recipe has that name with hyphens."""

EMBEDDED = "lookout_nano"
"""The key of the embedded model, which learned from other pictures besides."""

LECTURE_S = {"rcnn": 50.0, "fast_rcnn": 2.0, "faster_rcnn": 0.2}
"""Test time a picture, proposals included."""
LECTURE_AP50 = {"rcnn": 0.660, "fast_rcnn": 0.669, "faster_rcnn": 0.669}

SCORE_FLOOR = 0.001
PROPOSED = 10
"""Pictures on which the search for proposals is timed alone."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Figures:
    seconds: float
    proposing_s: float
    ap: float
    ap50: float
    drawn: npt.NDArray[np.float64] | None = None
    """AP50 on draws of pictures; None where these figures are an earlier run's."""


def run(
    runs: Path,
    annotations: Path,
    images: Path,
    device: Device = "cpu",
    plot: Path | None = None,
    beside: Path | None = None,
    say: Say = print,
) -> dict[str, Any]:
    """Measure every system that has a checkpoint.

    Args:
        runs: the folder with the trainings' own folders, each with a ``best.pt``.
        annotations: COCO JSON.
        images: the folder of its pictures.
        device: where the networks run; proposals are searched for on the CPU.
        plot: draws seconds against AP50 into this file.
        beside: what an earlier run printed as JSON, shown for the systems that have no checkpoint here.
        say: told what is exported and measured, and the table.

    Returns:
        By system: ``seconds_per_image`` (the median), of which ``proposing_s``, ``AP50``, ``AP`` and ``speed_up``
        over R-CNN; ``lead``: of each by how much its AP50 is ahead of the next, see :mod:`models.bootstrap`;
        ``lecture_speed_up`` for those that the lecture times; ``missing`` checkpoints; ``earlier``, the systems
        whose figures are of that earlier run.

    Raises:
        UsageError: there is no checkpoint at all, or ``beside`` is no such file.
        DataError: the annotations or the pictures are wrong.
    """
    found = {key: runs / key.replace("_", "-") / "best.pt" for key in SYSTEMS}
    missing = [key for key, path in found.items() if not path.is_file()]
    if len(missing) == len(SYSTEMS):
        raise UsageError(
            f"{runs}: has no checkpoint such as {found['rcnn']}; train them first: configs/train/lineage/README.md"
        )
    earlier = {} if beside is None else _earlier(beside, missing)
    models = {key: _exported(path, say) for key, path in found.items() if key not in missing}
    figures = dict(earlier)
    for key, model in {**models, EMBEDDED: resolve_model(DEFAULT)}.items():
        say(f"measuring {key}")
        figures[key] = _measured(model, annotations, images, device)
    figures = {key: figures[key] for key in (*SYSTEMS, EMBEDDED) if key in figures}
    leads = _leads(figures)
    say(_table(figures, earlier, leads))
    if plot is not None:
        _draw(figures, earlier, plot)
    return {
        "seconds_per_image": {key: round(each.seconds, 5) for key, each in figures.items()},
        "proposing_s": {key: round(each.proposing_s, 5) for key, each in figures.items()},
        "AP50": {key: round(each.ap50, 4) for key, each in figures.items()},
        "AP": {key: round(each.ap, 4) for key, each in figures.items()},
        "lead": leads,
        "speed_up": _speed_ups({key: each.seconds for key, each in figures.items()}),
        "lecture_speed_up": _speed_ups(LECTURE_S),
        "missing": missing,
        "earlier": list(earlier),
    }


def _earlier(path: Path, keys: list[str]) -> dict[str, _Figures]:
    """Of an earlier run, the figures of those systems that it measured."""
    try:
        parts = json.loads(path.read_text())
        seconds, proposing_s, ap, ap50 = (
            parts[name] for name in ("seconds_per_image", "proposing_s", "AP", "AP50")
        )
        return {
            key: _Figures(float(seconds[key]), float(proposing_s[key]), float(ap[key]), float(ap50[key]))
            for key in keys
            if key in seconds
        }
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{path}: expected what lookout bench lineage --json prints") from None


def _speed_ups(seconds: dict[str, float]) -> dict[str, float]:
    """Over R-CNN; nothing where it was not measured."""
    return {key: round(seconds["rcnn"] / each, 1) for key, each in seconds.items() if "rcnn" in seconds}


def _leads(figures: dict[str, _Figures]) -> dict[str, dict[str, Any]]:
    """Of each system that was measured now, ``over`` which it is next ahead in AP50, and by how much."""
    drawn = {key: each.drawn for key, each in figures.items() if each.drawn is not None}
    order = sorted(drawn, key=lambda key: figures[key].ap50, reverse=True)
    return {
        key: {"over": below}
        | {name: round(value, 4) for name, value in asdict(lead(drawn[key], drawn[below])).items()}
        for key, below in pairwise(order)
    }


def _table(figures: dict[str, _Figures], earlier: Container[str], leads: dict[str, dict[str, Any]]) -> str:
    """The figures in columns, the lecture's on the right."""
    table = Table(
        *("", "AP50", "ahead of", "AP50 (95 %)", "s a picture", "proposing", "speed-up"),
        *("lecture's AP50", "s", "speed-up"),
        box=None,
    )
    for column in table.columns[1:]:
        column.justify = "right"
    ours, theirs = _speed_ups({key: each.seconds for key, each in figures.items()}), _speed_ups(LECTURE_S)
    for key, each in figures.items():
        row = [
            f"{key} (earlier)" if key in earlier else key,
            f"{each.ap50:.3f}",
            leads[key]["over"] if key in leads else "",
            "{low:+.3f} to {high:+.3f}".format(**leads[key]) if key in leads else "",
            f"{each.seconds:.4f}",
            f"{each.proposing_s:.4f}",
        ]
        row.append(f"{ours[key]:.1f}x" if ours else "")
        if key in LECTURE_S:
            row += [f"{LECTURE_AP50[key]:.3f}", f"{LECTURE_S[key]:.1f}", f"{theirs[key]:.0f}x"]
        table.add_row(*row)
    drawn = StringIO()
    Console(width=140, file=drawn).print(table)
    return drawn.getvalue()


def _exported(checkpoint: Path, say: Say) -> Path:
    out = checkpoint.with_suffix(".onnx")
    if not out.is_file() or out.stat().st_mtime < checkpoint.stat().st_mtime:
        export_model(checkpoint, out, say=say)
    return out


def _measured(model: Path, annotations: Path, images: Path, device: Device) -> _Figures:
    detector = Detector(model, device)
    file = read_coco(annotations, detector.spec.names)
    examples = examples_of(file, images)
    seconds: list[float] = []
    predictions = []
    detector.detect_images([examples[0].read()], SCORE_FLOOR)  # the first run plans its memory
    for example in examples:
        picture = example.read()
        started = perf_counter()
        (found,) = detector.detect_images([picture], SCORE_FLOOR)
        seconds.append(perf_counter() - started)
        predictions.append(Prediction(example.image_id, found.boxes, found.scores, found.classes))
    metrics = judged(ground_truth(file, detector.spec.names), detector.spec.names, predictions)
    drawn = drawn_ap50(file, detector.spec.names, predictions)
    proposing_s = _proposing_s(detector, examples[:PROPOSED])
    return _Figures(median(seconds), proposing_s, metrics.AP, metrics.AP50, drawn)


def _proposing_s(detector: Detector, examples: list[Example]) -> float:
    """Seconds a picture of the search alone; 0 for a model that finds its own boxes."""
    rule = detector.spec.proposal_rule
    if rule is None:
        return 0.0
    seconds = []
    for example in examples:
        letterbox = detector.spec.place(example.width, example.height)
        placed = letterbox.apply(example.read())
        started = perf_counter()
        rule.inside(placed, letterbox)
        seconds.append(perf_counter() - started)
    return median(seconds)


def _draw(figures: dict[str, _Figures], earlier: Container[str], path: Path) -> None:
    """Seconds a picture, downwards to the right, against AP50; what was measured earlier as a ring."""
    from matplotlib.figure import Figure  # of the extra plots

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    in_order = sorted(figures.items(), key=lambda item: item[1].seconds)
    for number, (key, each) in enumerate(in_order):
        colour = f"C{number}"
        axes.scatter(
            each.seconds, each.ap50, s=40, edgecolors=colour, facecolors="none" if key in earlier else colour
        )
        axes.annotate(
            SYSTEMS.get(key, DEFAULT),
            (each.seconds, each.ap50),
            xytext=(0, -14 if number % 2 else 7),  # neighbours may have nearly the same AP
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    axes.margins(0.15)
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_xlabel("seconds a picture (faster to the right)")
    axes.set_ylabel("AP50")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
