"""A head as convolutions gives, at every place, what it gives on the window there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.lineage.dense import as_convolutions, fully_connected, shifted


def _windows_one_by_one(maps: Tensor, head: nn.Module, height: int, width: int, pool: int = 1) -> Tensor:
    """The slow reference: cut out each window of unpooled cells, pool it, run the head."""
    high, wide = height * pool, width * pool
    rows = [
        torch.stack(
            [
                head(functional.max_pool2d(maps[:, :, y : y + high, x : x + wide], pool))
                for x in range(maps.shape[3] - wide + 1)
            ],
            -1,
        )
        for y in range(maps.shape[2] - high + 1)
    ]
    return torch.stack(rows, 2)  # (B, outputs, rows, columns)


def _same(got: Tensor, wanted: Tensor) -> None:
    difference = (got - wanted).abs()
    print(f"{tuple(got.shape)}: max {difference.max():.2e} mean {difference.mean():.2e}")
    assert got.shape == wanted.shape
    assert difference.max() < 1e-5


@torch.no_grad()
def test_a_head_equals_its_convolutions() -> None:
    torch.manual_seed(0)
    head = nn.Sequential(
        nn.Flatten(),
        nn.Linear(5 * 3 * 2, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(16, 4, bias=False),
    )
    norm = head[2]
    assert isinstance(norm, nn.BatchNorm1d)
    norm.running_mean = torch.randn(16)
    norm.running_var = torch.rand(16) + 0.5
    head.eval()
    maps = torch.randn(2, 5, 7, 6)
    _same(as_convolutions(head, 3, 2)(maps), _windows_one_by_one(maps, head, 3, 2))


@torch.no_grad()
@pytest.mark.parametrize(("pool", "height", "width"), [(2, 3, 2), (3, 2, 1), (1, 2, 2), (2, 1, 1)])
def test_shifted_pooling_and_a_dilated_kernel_are_the_windows_at_every_cell(
    pool: int, height: int, width: int
) -> None:
    torch.manual_seed(0)
    head = fully_connected(5 * height * width, (8,), 3).eval()
    for rows, columns in ((11, 13), (pool * height + pool - 1, pool * width + pool - 1)):
        maps = torch.randn(2, 5, rows, columns)
        wanted = _windows_one_by_one(maps, head, height, width, pool)
        _same(shifted(maps, as_convolutions(head, height, width), pool), wanted)
        dilated = as_convolutions(head, height, width, dilation=pool)
        _same(dilated(functional.max_pool2d(maps, pool, stride=1)), wanted)


def test_a_converted_head_is_as_trainable_as_it_was() -> None:
    head = fully_connected(8, (4,), 2)
    assert as_convolutions(head, 2, 2).training
    assert not as_convolutions(head.eval(), 2, 2).training
    assert all(parameter.requires_grad for parameter in as_convolutions(head, 2, 2).parameters())


def test_what_is_no_window_head_is_refused() -> None:
    with pytest.raises(TypeError, match=r"head of LSTM cannot be a convolution; expected linear layers"):
        as_convolutions(nn.Sequential(nn.LSTM(4, 4)), 1, 1)
    with pytest.raises(ValueError, match="10 inputs does not take 2x2 cells"):
        as_convolutions(nn.Sequential(nn.Linear(10, 4)), 2, 2)
