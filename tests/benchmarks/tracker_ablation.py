"""What each part of the tracker is worth: HOTA and IDF1 of everything, with one part at a time left out.

    python -m tests.benchmarks.tracker_ablation ../shared/data/mot

A sequence's figure is the mean over every frame and every third, forwards and backwards, so that one lucky or unlucky
swap decides less; a made world's is the mean over its frame rates.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from stream.bench import tracker as bench
from stream.bench import worlds
from stream.tracking import Tracker, TrackerParameters

USUAL = TrackerParameters()
PARTS: dict[str, tuple[TrackerParameters, bool]] = {
    "all of it": (USUAL, True),
    "no unsure detections (ByteTrack's second stage)": (replace(USUAL, low_score=USUAL.high_score), True),
    "no velocity": (replace(USUAL, motion=replace(USUAL.motion, place_memory_s=0.05)), True),
    "velocity that never changes": (replace(USUAL, motion=replace(USUAL.motion, place_memory_s=1e4)), True),
    "Gaussian noise, no heavy tails": (replace(USUAL, tail=1e4), True),
    "no memory of the lost": (
        replace(USUAL, life=replace(USUAL.life, lost_s=USUAL.life.show_s)),
        True,
    ),
    "a second box may start a track": (replace(USUAL, double_iou=1.0), True),
    "shown at first sight": (replace(USUAL, life=replace(USUAL.life, confirm_evidence=0.0)), True),
    "the picture's edges unknown": (USUAL, False),
}
"""The parameters, and whether the tracker knows the size of the picture."""


def cases(data: Path) -> dict[str, list[bench.Case]]:
    """By name of their column."""
    columns: dict[str, list[bench.Case]] = {}
    for case in bench.read_cases(data):
        columns.setdefault(case.name.rpartition("/")[0], []).extend(both_ways(case))
    for kind in worlds.KINDS:
        columns[kind] = [bench.made(kind, fps) for fps in bench.WORLD_RATES]
    return columns


def both_ways(case: bench.Case) -> Iterator[bench.Case]:
    yield case
    end_s = case.moments[-1].time_s
    yield replace(
        case, moments=[replace(moment, time_s=end_s - moment.time_s) for moment in reversed(case.moments)]
    )


def judged(columns: dict[str, list[bench.Case]], new: Callable[[], Tracker], edges: bool) -> list[str]:
    cells = []
    for some in columns.values():
        known = some if edges else [replace(case, width=10**6, height=10**6) for case in some]
        scores = [bench.score(case, bench.followed(case, new())) for case in known]
        cells.append(
            " / ".join(f"{np.mean([score[name] for score in scores]):.1f}" for name in ("HOTA", "IDF1"))
        )
    return cells


def main() -> int:
    columns = cases(Path(sys.argv[1]))
    table = Table("HOTA / IDF1", *columns, box=None)
    for part, (parameters, edges) in PARTS.items():
        table.add_row(part, *judged(columns, partial(Tracker, parameters), edges))
        print(part, file=sys.stderr)
    drawn = StringIO()
    Console(width=220, file=drawn).print(table)
    print(drawn.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())
