"""Fully connected layers as convolutions: a window classifier that looks everywhere at once.

OverFeat (Sermanet et al. 2014, arXiv 1312.6229, section 3.5): a head that takes a map of h x w cells is a
convolution whose kernel is h x w, and every layer after it one of 1 x 1. On a larger map it gives, at each
place, what it gives on a crop there, and neighbouring windows share their work.

The head's maps are pooled first, which makes windows start only at every ``pool``-th cell. The paper pools
again from shifted origins, once for each (dx, dy) below ``pool``, and interleaves what comes out
(section 3.3). :func:`shifted` does that to the letter. Pooling with stride 1 and reading every ``pool``-th
cell of it (a dilated kernel) gives the same in one pass, which is what a detector uses.

Knows nothing of pictures, boxes or training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_UNCHANGED = (nn.ReLU, nn.ReLU6, nn.Dropout, nn.Identity, nn.Sigmoid, nn.Tanh)
"""What works on each number by itself, and is the same in a map."""


def fully_connected(
    inputs: int, hidden: tuple[int, ...], outputs: int, dropout: float = 0.5
) -> nn.Sequential:
    """A head of the time: linear layers with ReLU and dropout between them, on a flattened map."""
    layers: list[nn.Module] = [nn.Flatten()]
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def as_convolutions(head: nn.Sequential, height: int, width: int, dilation: int = 1) -> nn.Sequential:
    """The convolutions that do at every place of a map what ``head`` does on one window.

    Args:
        head: on a map (B, C, height, width): Flatten, then Linear, BatchNorm1d and layers that treat each
            number alone. Its weights are copied, so training goes on in either, not in both.
        height: cells of the map that one window has.
        width: likewise.
        dilation: cells between two that a window reads; the pooling's size after pooling with stride 1.

    Returns:
        a network from (B, C, H, W) to (B, outputs, H - dilation * (height - 1), W - dilation * (width - 1)).

    Raises:
        TypeError: a layer that is none of these.
        ValueError: the first linear layer does not take height x width cells.
    """
    layers: list[nn.Module] = []
    kernel = (height, width)
    for layer in head:
        if isinstance(layer, nn.Linear):
            layers.append(_convolution(layer, kernel, dilation))
            kernel = (1, 1)
        elif isinstance(layer, nn.BatchNorm1d):
            layers.append(_batch_norm(layer))
        elif isinstance(layer, _UNCHANGED):
            layers.append(layer)
        elif not isinstance(layer, nn.Flatten):
            raise TypeError(
                f"a head of {type(layer).__name__} cannot be a convolution; expected linear layers"
            )
    return nn.Sequential(*layers).train(head.training)


def _convolution(layer: nn.Linear, kernel: tuple[int, int], dilation: int) -> nn.Conv2d:
    channels, left_over = divmod(layer.in_features, kernel[0] * kernel[1])
    if left_over:
        raise ValueError(f"a layer of {layer.in_features} inputs does not take {kernel[0]}x{kernel[1]} cells")
    spread = dilation if kernel != (1, 1) else 1
    made = nn.Conv2d(channels, layer.out_features, kernel, dilation=spread, bias=layer.bias is not None)
    # Flattening puts channels first, then rows, then columns: the order of a kernel's own numbers.
    state = {"weight": layer.weight.detach().reshape(made.weight.shape)}
    if layer.bias is not None:
        state["bias"] = layer.bias.detach()
    made.load_state_dict(state)
    return made.to(layer.weight.device)


def _batch_norm(layer: nn.BatchNorm1d) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(
        layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
    )
    made.load_state_dict(layer.state_dict())
    return made.to(next(iter(layer.state_dict().values())).device) if layer.state_dict() else made


def shifted(maps: Tensor, head: nn.Module, pool: int) -> Tensor:
    """The paper's offset evaluation: pool from each of pool x pool origins, classify, interleave.

    Args:
        maps: unpooled (B, C, H, W).
        head: convolutions of dilation 1, whose windows are of h x w pooled cells.
        pool: side and stride of the pooling, in cells.

    Returns:
        (B, outputs, H - pool * h + 1, W - pool * w + 1): a window starts at every cell.

    Raises:
        RuntimeError: a map smaller than one window and its shifts.
    """
    parts = [
        [head(functional.max_pool2d(maps[:, :, dy:, dx:], pool)) for dx in range(pool)] for dy in range(pool)
    ]
    rows = sum(part[0].shape[2] for part in parts)
    columns = sum(part.shape[3] for part in parts[0])
    out = torch.empty(*parts[0][0].shape[:2], rows, columns, dtype=maps.dtype, device=maps.device)
    for dy, row in enumerate(parts):
        for dx, part in enumerate(row):
            out[:, :, dy::pool, dx::pool] = part
    return out
