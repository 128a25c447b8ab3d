"""The depthwise convolution of mobile networks.

Knows nothing of the networks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DepthwiseConv2d(nn.Conv2d):
    """One filter a channel. Under autocast on a CPU it stays in float32.

    There bfloat16 gradients of depthwise convolutions have no fast path (torch 2.13: four times slower
    than float32, which halves the speed of the whole training step).
    """

    def __init__(self, channels: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(channels, channels, kernel, stride, padding, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float()).to(x.dtype)
        return super().forward(x)
