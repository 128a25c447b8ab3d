from __future__ import annotations

import pytest
import torch

from models.lineage.platt import fit_platt


def test_it_finds_the_curve_that_made_the_labels() -> None:
    torch.manual_seed(0)
    scores = torch.randn(20000) * 2
    positive = torch.rand(20000) < (1.5 * scores - 0.7).sigmoid()
    slope, offset = fit_platt(scores, positive)
    assert slope == pytest.approx(1.5, abs=0.05)
    assert offset == pytest.approx(-0.7, abs=0.05)


def test_separate_classes_have_a_finite_curve() -> None:
    scores, positive = torch.tensor([-2.0, -1.0, 1.0, 2.0]), torch.tensor([False, False, True, True])
    slope, offset = fit_platt(scores, positive)
    assert 0 < slope < 10
    assert offset == pytest.approx(0, abs=1e-4)


def test_nothing_right_is_improbable_everywhere() -> None:
    slope, offset = fit_platt(torch.linspace(-1, 1, 50), torch.zeros(50, dtype=torch.bool))
    assert abs(slope) < 1e-3
    assert torch.tensor(offset).sigmoid().item() == pytest.approx(1 / 52, abs=1e-3)
