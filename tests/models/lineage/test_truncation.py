"""Truncated SVD against matrices whose singular values are plain."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.lineage.truncation import truncate, truncated_shape


def _layer(weight: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(torch.arange(float(len(weight))))
    return layer


def test_the_least_singular_value_goes_first() -> None:
    layer = _layer(torch.tensor([[3.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, 2, 0]]))
    product = truncate(layer, 2)(torch.eye(4)) - layer.bias
    torch.testing.assert_close(product.T, torch.tensor([[3.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 2, 0]]))


def test_all_singular_values_are_the_layer() -> None:
    torch.manual_seed(0)
    layer, x = _layer(torch.randn(5, 7)), torch.randn(3, 7)
    torch.testing.assert_close(truncate(layer, 5)(x), layer(x), atol=1e-5, rtol=1e-5)


def test_the_error_is_what_was_left_out() -> None:
    torch.manual_seed(0)
    layer = _layer(torch.randn(6, 9))
    values = torch.linalg.svdvals(layer.weight)
    for rank in range(1, 6):
        product = (truncate(layer, rank)(torch.eye(9)) - layer.bias).T
        error = (product - layer.weight).square().sum()
        torch.testing.assert_close(error, values[rank:].square().sum(), atol=1e-5, rtol=1e-4)


def test_weights_are_counted_as_in_the_paper() -> None:
    pair = truncated_shape(nn.Linear(25088, 4096, device="meta"), 1024)
    assert sum(layer.weight.numel() for layer in pair if isinstance(layer, nn.Linear)) == 1024 * (
        25088 + 4096
    )
    for rank in (0, 7):
        with pytest.raises(ValueError, match="expected 1 to 6"):
            truncated_shape(nn.Linear(9, 6), rank)
