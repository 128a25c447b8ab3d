"""Weights and a picture that any machine can write down again: no random generator, exact integers."""

from __future__ import annotations

import math
import zlib
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)

_PERIOD = 65521  # a prime, so that no two rows of a matrix repeat each other


def pattern(count: int, seed: int) -> Tensor:
    """``count`` float32 numbers from -1 to 1, a mixed-up counter that starts again after ``_PERIOD``."""
    x = (torch.arange(min(count, _PERIOD)) * 2654435761 + seed) & 0xFFFFFFFF
    x = ((x ^ x >> 15) * 2246822519) & 0xFFFFFFFF
    x = ((x ^ x >> 13) * 3266489917) & 0xFFFFFFFF
    values = ((x ^ x >> 16).double() / 2**31 - 1).float()
    return values.repeat(count // len(values) + 1)[:count]


def weights(name: str, like: Tensor) -> Tensor:
    """The tensor ``name`` of a state dict, of a size that keeps activations near 1."""
    if name.endswith("num_batches_tracked"):
        return torch.ones_like(like, device="cpu")
    values = pattern(like.numel(), zlib.crc32(name.encode())).reshape(like.shape)
    if like.ndim > 1:
        return values * math.sqrt(6 / like[0].numel())  # He et al.'s variance
    if name.endswith(("running_var", "weight")):
        # A residual network's branches at half strength, or the sum over its blocks grows without end.
        return (1 + 0.3 * values) * (0.5 if name.endswith(("bn2.weight", "bn3.weight")) else 1)
    return 0.2 * values


def filled(network: Network) -> Network:
    """``network``, built on torch's ``meta`` device, with its weights written, for inference."""
    state = {name: weights(name, tensor) for name, tensor in network.state_dict().items()}
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def picture(height: int, width: int) -> Tensor:
    """uint8 RGB (1, height, width, 3)."""
    values = pattern(height * width * 3, 7).reshape(1, height, width, 3)
    return ((values + 1) * 127.5).to(torch.uint8)
