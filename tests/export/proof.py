"""An export of a stranger's file that is shown to equal it, within the project's bars."""

from __future__ import annotations

from pathlib import Path

from export.adapt import Wishes
from export.artifact import ModelSpec
from export.convert import export_model

MOST_PX = 0.01
MOST_SCORE = 1e-4
FEWEST = 100  # detections, or nothing much was compared


def proven(path: Path, wishes: Wishes | None = None) -> tuple[ModelSpec, str]:
    """Export ``path`` to the same name with ``.out``; the spec, and what was recognised."""
    said: list[str] = []
    spec = export_model(path, path.with_suffix(".out"), wishes=wishes or Wishes(), say=said.append)
    print(said[0], spec.parity)
    assert spec.parity["max_box_difference_px"] <= MOST_PX
    assert spec.parity["max_score_difference"] <= MOST_SCORE
    assert spec.parity["detections"] >= FEWEST
    return spec, said[0]
