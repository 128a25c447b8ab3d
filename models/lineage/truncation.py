"""Fully connected layers cut down by truncated SVD (Girshick, arXiv 1504.08083, section 3.1).

A layer of u outputs and v inputs becomes two with t (u + v) weights in place of u v: the t largest singular
values and their vectors, without a nonlinearity between. Knows nothing of detectors.
"""

from __future__ import annotations

import torch
from torch import nn


def truncated_shape(layer: nn.Linear, rank: int) -> nn.Sequential:
    """Two untrained layers in place of ``layer``.

    Raises:
        ValueError: the layer has fewer singular values than ``rank``.
    """
    most = min(layer.in_features, layer.out_features)
    if not 1 <= rank <= most:
        raise ValueError(f"rank is {rank}, expected 1 to {most} for {layer}")
    return nn.Sequential(
        nn.Linear(layer.in_features, rank, bias=False),
        nn.Linear(rank, layer.out_features, bias=layer.bias is not None),
    )


@torch.no_grad()
def truncate(layer: nn.Linear, rank: int) -> nn.Sequential:
    """The two layers of ``rank`` that come nearest to ``layer``: their product has the least squared error."""
    pair = truncated_shape(layer, rank)
    left, values, right = torch.linalg.svd(layer.weight, full_matrices=False)
    first, second = pair[0], pair[1]
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    first.weight.copy_(values[:rank, None] * right[:rank])
    second.weight.copy_(left[:, :rank])
    if layer.bias is not None:
        second.bias.copy_(layer.bias)
    return pair
