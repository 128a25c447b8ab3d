"""Recall against figures counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.lineage.recall import Recall, overlap
from tests.models.conftest import SHAPES


def test_overlap_by_hand() -> None:
    one = np.array([[0, 0, 10, 10]], np.float32)
    others = np.array(
        [[0, 0, 10, 10], [0, 0, 10, 5], [5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 3]], np.float32
    )
    np.testing.assert_allclose(overlap(one, others), [[1, 0.5, 50 / 150, 0, 0]])
    assert overlap(one, others[:0]).shape == (1, 0)


def test_recall_by_hand() -> None:
    """Two objects in two pictures: the first is met by 0.5 and, third, by 0.9; the second by 0.75 at once."""
    boxes = [
        np.array([[0, 0, 10, 10]], np.float32),
        np.array([[0, 0, 8, 10]], np.float32),
        np.zeros((0, 4), np.float32),
    ]
    proposals = [
        np.array([[0, 0, 10, 5], [50, 50, 60, 60], [0, 0, 10, 9]], np.float32),
        np.array([[0, 0, 6, 10]], np.float32),
        np.array([[0, 0, 6, 10]], np.float32),
    ]
    recall = Recall.of(boxes, proposals, [1, 2, 3])
    assert [recall.at(count, 0.5) for count in (1, 2, 3)] == [1, 1, 1]
    assert [recall.at(count, 0.7) for count in (1, 2, 3)] == [0.5, 0.5, 1]
    assert recall.at(3, 0.8) == 0.5
    assert recall.average(1) == pytest.approx(2 * (0 + 0.25) / 2)
    assert recall.average(3) == pytest.approx(2 * (0.4 + 0.25) / 2)
    fine = np.linspace(0.5, 1, 20001)
    area = np.mean([recall.at(3, float(iou)) for iou in fine])
    assert recall.average(3) == pytest.approx(area, abs=1e-3), "twice the area below the curve"


def test_a_picture_without_proposals_recalls_nothing() -> None:
    box = np.array([[0, 0, 10, 10]], np.float32)
    recall = Recall.of([box], [np.zeros((0, 4), np.float32)], [10])
    assert recall.at(10, 0.5) == recall.average(10) == 0
    with pytest.raises(ValueError, match="nothing to recall"):
        Recall.of([box[:0]], [box], [10])


def test_the_benchmark_writes_figures_and_a_plot(shapes: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plots")
    from models.coco import load_coco
    from tests.benchmarks.proposals import run

    figures = run(load_coco(shapes, shapes.parent, SHAPES)[:4], 50, 96, 128, 0, tmp_path)
    print(figures)
    assert figures["objects"] == 4
    for those in figures["methods"].values():
        assert those["recall_at_0.5"][-1] == 1, "a bright shape on grey is found"
        assert 0.5 < those["average_recall"][-1] <= 1
        assert those["seconds_per_picture"] > 0
    assert (tmp_path / "proposals.png").read_bytes().startswith(b"\x89PNG")
