"""The part model as a network scores what the classical one does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from export.pictures import demo_pictures
from models.lineage.dpm import Dpm, DpmConfig
from models.lineage.dpm_cnn import assemble, maxout, pool_by_distance

CONFIG = DpmConfig(("person", "car"), 96, 160, scales_per_octave=1, parts=3)


def random_dpm(square: float) -> Dpm:
    """A model of random filters and anchors, whose parts pay ``square`` times their squared displacement."""
    torch.manual_seed(0)
    model = Dpm(CONFIG)
    model.roots.normal_().mul_(0.2)
    model.parts.normal_().mul_(0.2)
    model.biases.normal_()
    model.costs.copy_(torch.cat([torch.randn(12, 2) * square, torch.full((12, 2), square)], 1))
    model.geometry.zero_()
    places = model.geometry.view(12, -1)
    places[torch.arange(12), torch.randint(0, places.shape[1], (12,))] = 1
    return model.eval()


def _pictures() -> torch.Tensor:
    crops = [picture[80:176, 100:260] for picture in demo_pictures()[:2]]
    return torch.from_numpy(np.stack(crops))


def test_pooling_by_hand() -> None:
    responses = torch.tensor([[[[0.0, 0, 8, 0, 0, 0]]]])
    costs = torch.tensor([[0.0, 0, 1, 1]])
    assert pool_by_distance(responses, costs, 2).tolist() == [[[[4, 7, 8, 7, 4, 0]]]]
    assert pool_by_distance(responses, costs, 1).tolist() == [[[[0, 7, 8, 7, 0, 0]]]]
    costs = torch.tensor([[2.0, 0, 1, 1]])  # to the right costs 3, 8; to the left -1, 0
    assert pool_by_distance(responses, costs, 2).tolist() == [[[[0, 5, 8, 9, 8, 1]]]]


def test_parts_are_added_where_they_belong() -> None:
    roots, pooled = torch.zeros(1, 2, 1, 2), torch.zeros(1, 4, 4, 5)
    pooled[0, 0, 3, 1] = 1.0  # the first component's first part, whose anchor is in row 3, column 0
    pooled[0, 3, 0, 3] = 2.0  # the second's second part, anchor in row 0, column 3
    geometry = torch.zeros(2, 2, 4, 4)
    geometry[0, 0, 3, 0] = geometry[0, 1, 0, 0] = geometry[1, 0, 0, 0] = geometry[1, 1, 0, 3] = 1
    scores = assemble(roots, pooled, geometry, torch.tensor([0.0, 0.5]))
    assert scores[0].tolist() == [[[0, 1]], [[2.5, 0.5]]]
    assert maxout(scores, 2)[0].tolist() == [[[2.5, 1]]]


@torch.no_grad()
def test_equal_scores_where_no_part_wants_farther_than_the_window() -> None:
    model = random_dpm(0.3)
    responses = model.responses(model.pyramid(model.normalise(_pictures())))
    assert len(responses) == 2
    for level in responses:
        classical, network = model.classical_scores(level), model.scores(level)
        assert classical.shape == network.shape == (2, 4, *level.roots.shape[2:])
        difference = (classical - network).abs()
        print(f"{tuple(classical.shape)}: max {difference.max():.2e}, mean {difference.mean():.2e}")
        assert difference.max() < 1e-4


@torch.no_grad()
def test_parts_that_may_go_anywhere_score_more() -> None:
    """With almost no cost the window is what holds them: otherwise nothing was shown above."""
    model = random_dpm(0.01)
    level = model.responses(model.pyramid(model.normalise(_pictures())))[0]
    more = model.classical_scores(level) - model.scores(level)
    assert more.min() > -1e-4
    assert more.max() > 0.01


@torch.no_grad()
def test_a_window_by_hand() -> None:
    """One window's score from its own blocks: the root, and of each part the best of 81 places."""
    model, config = random_dpm(0.3), CONFIG
    maps = model.pyramid(model.normalise(_pictures()))
    level, row, column = 0, 5, 7
    blocks = maps[level + config.scales_per_octave][1, :, row : row + 14 : 2, column : column + 6 : 2]
    fine = maps[level][1]  # its blocks begin two later than the window's at twice the resolution
    for group in range(4):
        score = (blocks * model.roots[group]).sum() + model.biases[group]
        for part in range(3 * group, 3 * group + 3):
            y0, x0 = (torch.tensor([row, column]) - 2 + model.anchors()[part]).tolist()
            placed = [
                float((fine[:, y0 + dy : y0 + dy + 4, x0 + dx : x0 + dx + 4] * model.parts[part]).sum())
                - float(model.costs[part] @ torch.tensor([dx, dy, dx * dx, dy * dy]).float())
                for dy in range(-4, 5)
                for dx in range(-4, 5)
                if 0 <= y0 + dy <= fine.shape[1] - 4 and 0 <= x0 + dx <= fine.shape[2] - 4
            ]
            score += max(placed)
        found = model.scores(model.responses(maps)[level])[1, group, row, column]
        assert found.item() == pytest.approx(float(score), abs=1e-4)
