"""How good are proposals? Recall by their number and by overlap, and seconds a picture, of each method.

    python -m tests.benchmarks.proposals ANNOTATIONS.json IMAGES [--names person] [--count 1000] [--pictures 100]
        [--input 416x320] [--processes 2] [--out runs/proposals]

As a model of that input size would get them. Figures go to ``proposals.json``, a plot to ``proposals.png``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from models.coco import Example, load_coco
from models.letterbox import Letterbox
from models.lineage.proposal_cache import ProposalCache
from models.lineage.proposals import Method, ProposalRule
from models.lineage.recall import COUNTS, IOUS, Recall
from tests.benchmarks.plot import missing

METHODS: tuple[Method, ...] = ("selective-search", "edge-boxes")
TIMED = 5
"""Pictures on which one process is timed."""
READ_AT = (0.5, 0.7)


def run(
    examples: list[Example], count: int, input_height: int, input_width: int, processes: int, out: Path
) -> dict[str, Any]:
    """Measure every method on annotated pictures, and write the figures and the plot into ``out``.

    Args:
        examples: annotated pictures.
        count: proposals a picture.
        input_height, input_width: of the model they would be for.
        processes: that propose.
        out: a folder; proposals are kept there too.
    """
    counts = [each for each in COUNTS if each < count] + [count]
    figures: dict[str, Any] = {
        "pictures": len(examples),
        "objects": sum(len(example.boxes) for example in examples),
        "input": f"{input_width}x{input_height}",
        "counts": counts,
        "ious": list(IOUS),
        "methods": {},
    }
    for method in METHODS:
        rule = ProposalRule(method, count)
        seconds = _seconds(examples[:TIMED], rule, input_height, input_width)
        cache = ProposalCache(out / "found", rule, input_height, input_width)
        proposed = cache.add_to(examples, processes)
        recall = Recall.of([each.boxes for each in proposed], [each.proposals for each in proposed], counts)
        figures["methods"][method] = {"seconds_per_picture": round(seconds, 3), **_read(recall, counts)}
    (out / "proposals.json").write_text(json.dumps(figures, indent=1) + "\n")
    # In a process of its own, for the reason that ``plot.draw`` gives.
    command = [sys.executable, "-m", "tests.benchmarks.proposals", "--draw", str(out.resolve())]
    subprocess.run(command, cwd=Path(__file__).resolve().parents[2], check=True)
    return figures


def _seconds(examples: list[Example], rule: ProposalRule, input_height: int, input_width: int) -> float:
    """CPU seconds a picture, of one process."""
    taken = []
    for example in examples:
        letterbox = Letterbox.fit(example.width, example.height, input_width, input_height)
        image = letterbox.apply(example.read())
        started = time.process_time()
        rule.inside(image, letterbox)
        taken.append(time.process_time() - started)
    return float(np.median(taken))


def _read(recall: Recall, counts: list[int]) -> dict[str, Any]:
    by_count = {f"recall_at_{iou}": [round(recall.at(each, iou), 4) for each in counts] for iou in READ_AT}
    by_iou = {str(each): [round(recall.at(each, iou), 4) for iou in IOUS] for each in counts}
    average = [round(recall.average(each), 4) for each in counts]
    return {**by_count, "average_recall": average, "recall_by_iou": by_iou}


def _draw(folder: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figures = json.loads((folder / "proposals.json").read_text())
    counts, ious = figures["counts"], figures["ious"]
    figure, axes = pyplot.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    for method, those in figures["methods"].items():
        axes[0].plot(counts, those["recall_at_0.5"], marker="o", label=f"{method}, IoU 0.5")
        axes[0].plot(counts, those["recall_at_0.7"], marker="o", linestyle="--", label=f"{method}, IoU 0.7")
        axes[1].plot(
            ious, those["recall_by_iou"][str(counts[-1])], marker="o", label=f"{method}, {counts[-1]}"
        )
        axes[2].plot(counts, those["average_recall"], marker="o", label=method)
    labels = (("proposals", "recall"), ("IoU", "recall"), ("proposals", "average recall"))
    for panel, (across, up) in zip(axes, labels, strict=True):
        panel.set(xlabel=across, ylabel=up, ylim=(0, 1))
        if across == "proposals":
            panel.set_xscale("log")
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    figure.suptitle(f"{figures['objects']} objects in {figures['pictures']} pictures at {figures['input']}")
    figure.savefig(folder / "proposals.png", dpi=110)
    pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("annotations", type=Path, nargs="?")
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("--names", default="person", help="classes, separated by commas")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--input", default="416x320", help="WIDTHxHEIGHT")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/proposals"))
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="only draw the figures that are there")
    given = parser.parse_args()
    if lacks := missing():
        print(lacks, file=sys.stderr)
        return 2
    if given.draw is not None:
        _draw(given.draw)
        return 0
    if given.annotations is None or given.images is None:
        parser.error("give ANNOTATIONS.json and the folder of its pictures")
    width, height = map(int, given.input.split("x"))
    examples = load_coco(given.annotations, given.images, given.names.split(","))
    order = np.random.default_rng(0).permutation(len(examples))[: given.pictures]
    some = [examples[index] for index in order.tolist()]
    print(json.dumps(run(some, given.count, height, width, given.processes, given.out), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
