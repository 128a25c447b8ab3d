"""The SVM against solutions by hand, and the conditions that only the best solution fulfils."""

from __future__ import annotations

import pytest
import torch

from models.lineage.svm import fit_svm


def test_two_points_by_hand() -> None:
    points, positive = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([True, False])
    svm = fit_svm(points, positive, 10.0, tolerance=1e-6)
    assert svm.weights.tolist() == pytest.approx([1, 0], abs=1e-4)
    assert svm.bias == pytest.approx(0, abs=1e-4)
    assert svm.loss == pytest.approx(0.5, abs=1e-4)
    soft = fit_svm(points, positive, 0.1, tolerance=1e-6)  # both multipliers are at their bound
    assert soft.weights.tolist() == pytest.approx([0.2, 0], abs=1e-4)
    assert soft.multipliers.tolist() == pytest.approx([0.1, 0.1])
    assert soft.loss == pytest.approx(0.02 + 0.1 * 2 * 0.8, abs=1e-4)


def test_the_bias_moves_the_plane_between_points_on_one_side() -> None:
    points, positive = torch.tensor([[3.0], [5.0], [1.0], [0.0]]), torch.tensor([True, True, False, False])
    svm = fit_svm(points, positive, 100.0, bias_scale=20.0, tolerance=1e-3, passes=20000)
    assert svm.weights.tolist() == pytest.approx([1], abs=2e-2)
    assert svm.bias == pytest.approx(-2, abs=4e-2)
    assert svm.multipliers[1].item() == svm.multipliers[3].item() == 0  # far points hold nothing


def _blobs(count: int, apart: float) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    positive = torch.arange(count) < count // 3
    features = torch.randn(count, 8)
    features[positive, 0] += apart
    return features, positive


def test_separable_data_is_separated() -> None:
    features, positive = _blobs(300, 12.0)
    svm = fit_svm(features, positive, 10.0)
    assert bool(((features @ svm.weights + svm.bias > 0) == positive).all())


def test_the_conditions_of_karush_kuhn_and_tucker() -> None:
    features, positive = _blobs(600, 2.0)
    cost = torch.where(positive, 0.2, 0.05)
    svm = fit_svm(features, positive, cost, tolerance=1e-6, bias_scale=1.0)
    sign = torch.where(positive, 1.0, -1.0)
    margins = sign * (features @ svm.weights + svm.bias)
    alphas = svm.multipliers
    print(f"loss {svm.loss:.6f}, gap {svm.gap:.2e}")
    assert 0 <= svm.gap <= 1e-6 * svm.loss + 1e-6
    assert torch.allclose(svm.weights, (alphas * sign) @ features, atol=1e-4)
    assert bool((margins[alphas == 0] >= 1 - 1e-2).all())
    assert bool((margins[alphas >= cost] <= 1 + 1e-2).all())
    inside = (alphas > 1e-4) & (alphas < cost - 1e-4)
    assert int(inside.sum()) >= 5
    assert bool(((margins[inside] - 1).abs() < 1e-2).all())


def test_weights_have_a_least_value() -> None:
    points, positive = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([True, False])
    least = torch.tensor([-torch.inf, 0.5])
    svm = fit_svm(points, positive, 10.0, tolerance=1e-6, least=least)
    assert svm.weights.tolist() == pytest.approx([1, 0.5], abs=1e-4)
    assert svm.loss == pytest.approx(0.5 + 0.125, abs=1e-4)
    assert 0 <= svm.gap < 1e-4


def test_a_least_value_costs_no_more_than_it_must() -> None:
    """With a bound that holds, the best of all solutions that respect it: no small step is better."""
    features, positive = _blobs(600, 2.0)
    free = fit_svm(features, positive, 0.05, tolerance=1e-6, bias_scale=1.0)
    least = torch.full((8,), -torch.inf)
    least[0], least[1] = float(free.weights[0]) - 1, float(free.weights[1]) + 0.3
    svm = fit_svm(features, positive, 0.05, tolerance=1e-6, bias_scale=1.0, least=least)
    assert svm.weights[1] == least[1]
    assert svm.loss > free.loss
    sign = torch.where(positive, 1.0, -1.0)

    def loss(weights: torch.Tensor, bias: float) -> float:
        hinges = (1 - sign * (features @ weights + bias)).clamp(min=0)
        return float(weights @ weights + bias * bias) / 2 + 0.05 * float(hinges.sum())

    assert loss(svm.weights, svm.bias) == pytest.approx(svm.loss, rel=1e-4)
    for _ in range(50):
        step = 0.05 * torch.randn(9)
        assert loss(torch.maximum(svm.weights + step[:8], least), svm.bias + float(step[8])) > svm.loss - 1e-3


def test_it_continues_from_where_it_ended() -> None:
    features, positive = _blobs(600, 2.0)
    first = fit_svm(features, positive, 0.05, tolerance=1e-4)
    again = fit_svm(features, positive, 0.05, tolerance=1e-4, start=first.multipliers, passes=10)
    assert again.loss == pytest.approx(first.loss, rel=1e-3)
    assert again.gap <= 1e-4 * again.loss


def test_one_kind_of_example_is_refused() -> None:
    with pytest.raises(ValueError, match="both kinds of example"):
        fit_svm(torch.zeros(3, 2), torch.zeros(3, dtype=torch.bool), 1.0)
