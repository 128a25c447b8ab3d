"""The linear transform against trying every displacement."""

from __future__ import annotations

import numpy as np
import pytest

from models.lineage.distance_transform import Doubles, envelope, transform


def _brute(scores: Doubles, costs: Doubles) -> Doubles:
    parts, height, width = scores.shape
    y, x = np.mgrid[:height, :width]
    best = np.full_like(scores, -np.inf)
    for part in range(parts):
        for to_y in range(height):
            for to_x in range(width):
                dx, dy = to_x - x, to_y - y
                cost = (costs[part][:, None, None] * np.stack([dx, dy, dx**2, dy**2])).sum(0)
                best[part] = np.maximum(best[part], scores[part, to_y, to_x] - cost)
    return best


@pytest.mark.parametrize("shape", [(3, 7, 11), (2, 1, 9), (2, 9, 1), (1, 1, 1)])
@pytest.mark.parametrize("square", [0.01, 0.1, 2.0])
def test_it_is_the_best_of_all_displacements(shape: tuple[int, int, int], square: float) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=shape)
    costs = np.concatenate([rng.normal(size=(shape[0], 2)) * square, np.full((shape[0], 2), square)], 1)
    values, x, y = transform(scores, costs)
    assert np.abs(values - _brute(scores, costs)).max() < 1e-12
    part, row, column = np.indices(shape)
    dx, dy = x - column, y - row
    cost = (costs[:, :, None, None] * np.stack([dx, dy, dx**2, dy**2], 1)).sum(1)
    assert np.abs(scores[part, y, x] - cost - values).max() < 1e-12, "not where the best is"


def test_by_hand() -> None:
    values, best = envelope(np.array([[0.0, 0, 8, 0, 0]]), np.array([1.0]), np.array([0.0]))
    assert values.tolist() == [[4, 7, 8, 7, 4]]
    assert best.tolist() == [[2, 2, 2, 2, 2]]
    values, best = envelope(np.array([[0.0, 0, 8, 0, 0]]), np.array([5.0]), np.array([0.0]))
    assert values.tolist() == [[0, 3, 8, 3, 0]]
    assert best.tolist() == [[0, 2, 2, 2, 4]]
