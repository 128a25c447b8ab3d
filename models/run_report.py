"""What a training leaves behind for people: its recipe, ``metrics.csv``, curves, a confusion matrix, and pictures.

``recipe.yaml`` is the recipe with all defaults. ``metrics.csv`` has a row an epoch, and TensorBoard can show the same
(``tensorboard --logdir runs``). When a validation is the best so
far, ``confusion.png`` and ``predictions.jpg`` show what it was made of; ``curves.png`` follows every validation. The
two plots need matplotlib; without it, that is said once. Knows nothing of how anything is trained.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from ruamel.yaml import YAML
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from models.coco import Example
from models.confusion import SHOWN_SCORE, confusion
from models.evaluate import Metrics, Prediction
from models.recipe import Recipe
from models.tiles import GREEN, ORANGE, Mark, page, tile

PICTURES, COLUMNS, WIDTH = 12, 3, 480
EVENTS = "events.out.tfevents.lookout"
"""What TensorBoard reads: by its name."""
_MOST_CLASSES = 40
"""Of more, a confusion matrix is too large to read."""

Say = Callable[[str], None]
Row = dict[str, str]


class RunReport:
    """Of one training, in its own folder."""

    def __init__(self, recipe: Recipe, say: Say) -> None:
        self._folder, self._names = recipe.folder, recipe.names
        self._plots = find_spec("matplotlib") is not None
        if not self._plots:
            say("no plots: matplotlib is missing (pip install 'lookout[plots]')")
        with (self._folder / "recipe.yaml").open("w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump(recipe.model_dump(mode="json"), file)

    def epoch(self, epoch: int, seconds: float, losses: Mapping[str, float], metrics: Metrics | None) -> None:
        """Note an epoch; what a training before it, that was killed, noted of later ones is forgotten."""
        row = {"epoch": str(epoch), "seconds": f"{seconds:.1f}", "loss": f"{sum(losses.values()):.5f}"}
        row |= {f"loss {name}": f"{value:.5f}" for name, value in losses.items()}
        if metrics is not None:
            row |= {"AP": f"{metrics.AP:.4f}", "AP50": f"{metrics.AP50:.4f}", "AR": f"{metrics.AR:.4f}"}
            row |= {f"AP50 {name}": f"{value:.4f}" for name, value in metrics.per_class_AP50.items()}
        rows = [before for before in self._rows() if int(before["epoch"]) < epoch] + [row]
        columns = list(dict.fromkeys(name for each in rows for name in each))
        with (self._folder / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        _write_events(rows, self._folder / EVENTS)
        if metrics is not None and self._plots:
            _draw_progress(rows, self._folder / "curves.png")

    def best(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> None:
        """Show what the best validation so far saw."""
        if self._plots and len(self._names) <= _MOST_CLASSES:
            matrix = confusion(examples, predictions, len(self._names))
            _draw_confusion(matrix, self._names, self._folder / "confusion.png")
        page = _page(examples, predictions, self._names)
        cv2.imwrite(str(self._folder / "predictions.jpg"), page)

    def _rows(self) -> list[Row]:
        file = self._folder / "metrics.csv"
        if not file.is_file():
            return []
        with file.open(newline="", encoding="utf-8") as opened:
            rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(opened)]
        return [row for row in rows if row.get("epoch", "").isdecimal()]


def _write_events(rows: Sequence[Row], path: Path) -> None:
    """All rows as TensorBoard reads them; its time is the seconds of training."""
    seconds = 0.0
    writer = RecordWriter(str(path))
    writer.write(Event(wall_time=seconds, file_version="brain.Event:2").SerializeToString())
    for row in rows:
        seconds += float(row["seconds"])
        values = [
            Summary.Value(tag=name.replace(" ", "/"), simple_value=float(value))
            for name, value in row.items()
            if name != "epoch"
        ]
        event = Event(wall_time=seconds, step=int(row["epoch"]), summary=Summary(value=values))
        writer.write(event.SerializeToString())
    writer.close()


def _draw_progress(rows: Sequence[Row], picture: Path) -> None:
    from matplotlib.figure import Figure  # of the extra plots

    figure = Figure(figsize=(8, 5), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    for axes, column, colour in (
        (left, "loss", "tab:blue"),
        (right, "AP50", "tab:orange"),
        (right, "AP", "tab:green"),
    ):
        points = [(int(row["epoch"]), float(row[column])) for row in rows if column in row]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, color=colour, label=column)
    left.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    right.set(ylabel="AP50, AP", ylim=(0, 1))
    left.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3)
    figure.savefig(picture, dpi=100)


def _draw_confusion(matrix: npt.NDArray[np.int64], names: Sequence[str], picture: Path) -> None:
    """Counts in words, and in colour the part of each row."""
    from matplotlib.figure import Figure  # of the extra plots

    labels = [*names, "background"]
    side = 2.5 + 0.5 * len(labels)
    figure = Figure(figsize=(side + 0.5, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(matrix / np.maximum(matrix.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(matrix > 0).tolist():
        share = matrix[row, column] / matrix[row].sum()
        colour = "white" if share > 0.5 else "black"
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(labels)), labels, rotation=90)
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel=f"found as (score from {SHOWN_SCORE}, IoU from 0.5)", ylabel="is")
    figure.savefig(picture, dpi=100)


def _page(
    examples: Sequence[Example], predictions: Sequence[Prediction], names: Sequence[str]
) -> npt.NDArray[np.uint8]:
    """Some pictures, evenly chosen, with the truth in green and what was found in orange: uint8 BGR."""
    by_picture = {prediction.image_id: prediction for prediction in predictions}
    chosen = np.unique(np.linspace(0, len(examples) - 1, min(PICTURES, len(examples))).round().astype(int))
    tiles = []
    for example in (examples[number] for number in chosen.tolist()):
        marks = [Mark(box, GREEN) for box in example.boxes]
        marks += _found(by_picture.get(example.image_id), names)
        tiles.append(tile(example.read(), marks, WIDTH, WIDTH))
    return page(tiles, COLUMNS)


def _found(found: Prediction | None, names: Sequence[str]) -> list[Mark]:
    if found is None:
        return []
    return [
        Mark(box, ORANGE, f"{names[class_]} {score:.2f}")
        for box, score, class_ in zip(found.boxes, found.scores, found.classes, strict=True)
        if score >= SHOWN_SCORE
    ]
