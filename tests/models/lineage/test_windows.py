from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.lineage.windows import FEWEST_NEGATIVES, ideal_windows, sample, sliding_windows
from models.target import Target


def _target(boxes: list[list[float]], ignored: list[list[float]] | None = None) -> Target:
    def tensor(rows: list[list[float]]) -> Tensor:
        return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)

    return Target(
        tensor(boxes), torch.zeros(len(boxes)).long(), tensor(ignored or []), tensor([]), tensor([])
    )


def test_windows_go_row_by_row() -> None:
    windows = sliding_windows(2, 3, 16, 64, 32)
    assert windows.shape == (6, 4)
    assert windows[2].tolist() == [32, 0, 64, 64]
    assert windows[3].tolist() == [0, 16, 32, 80]


def test_an_object_fills_four_fifths_of_its_ideal_window() -> None:
    tall, wide = [100.0, 100, 120, 180], [0.0, 0, 80, 40]
    found = ideal_windows(torch.tensor([tall, wide]), aspect=0.5)
    assert found[0].tolist() == pytest.approx([85, 90, 135, 190])  # 80 high: 100 high, 50 wide
    assert found[1].tolist() == pytest.approx([-10, -80, 90, 120])  # 80 wide: 100 wide, 200 high


def test_which_windows_are_learned_from() -> None:
    """A window of 64x32 holds an object of 51.2 high best; moved by 16 pixels to the side it is half right."""
    windows = sliding_windows(1, 12, 8, 64, 32)
    target = _target([[32 + 10.0, 6.4, 32 + 22, 57.6]])  # ideal: the window at x = 32, the fourth
    chosen = sample(windows, 0.5, torch.zeros(12), target)
    # 8 pixels aside: IoU 24/40 = 0.6; 16: 16/48 = 0.33, neither; 24: 8/56, a negative
    assert sorted(chosen.positives.tolist()) == [3, 4, 5]
    assert chosen.objects.tolist() == [0, 0, 0]
    assert sorted(chosen.negatives.tolist()) == [0, 1, 7, 8, 9, 10, 11]


def test_an_object_between_two_windows_is_not_lost() -> None:
    windows = sliding_windows(1, 3, 32, 64, 32)
    chosen = sample(windows, 0.5, torch.zeros(3), _target([[12.0 + 10, 6.4, 12 + 22, 57.6]]))
    assert chosen.positives.tolist() == [0], "IoU 20/44 is below half, but no window is better"
    chosen = sample(windows, 0.5, torch.zeros(3), _target([[8.0, 8, 10, 12]]))
    assert chosen.positives.tolist() == [], "an object of 4 pixels fits no window"


def test_ignored_areas_are_no_background() -> None:
    windows = sliding_windows(1, 4, 32, 64, 32)
    chosen = sample(windows, 0.5, torch.zeros(4), _target([], ignored=[[30.0, 0, 70, 64], [100, 0, 104, 8]]))
    assert sorted(chosen.negatives.tolist()) == [0, 2], "the second is covered, the fourth covers a small one"


def test_the_most_offending_windows_are_among_the_negatives() -> None:
    windows = sliding_windows(10, 10, 16, 64, 32)
    objectness = torch.linspace(0, 1, 100)
    torch.manual_seed(0)
    chosen = sample(windows, 0.5, objectness, _target([])).negatives.tolist()
    assert len(chosen) == len(set(chosen)) == FEWEST_NEGATIVES
    assert set(range(92, 100)) <= set(chosen)
    assert min(chosen) < 92 - FEWEST_NEGATIVES, "the others are from anywhere"
