from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.backbones.lenet import LeNet


def test_sizes_are_the_papers() -> None:
    """With every map of C3 seeing all of S2: 156 + 2,416 + 48,120 + 10,164 + 850 weights."""
    network = LeNet()
    assert sum(parameter.numel() for parameter in network.parameters()) == 61_706
    assert network.features(torch.zeros(1, 1, 32, 32)).shape == (1, 16, 5, 5)
    shades = network.normalise(torch.tensor([[[255, 0]]], dtype=torch.uint8))
    assert torch.allclose(shades, torch.tensor([[[[-0.1, 1.175]]]]))


def shapes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """uint8 grey (count, 32, 32) on noise: squares, discs and triangles, 0 to 2."""
    rng = np.random.default_rng(seed)
    pictures, kinds = rng.integers(200, 256, (count, 32, 32), dtype=np.uint8), rng.integers(0, 3, count)
    for picture, kind in zip(pictures, kinds, strict=True):
        radius, (x, y) = int(rng.integers(6, 10)), (int(v) for v in rng.integers(10, 22, 2))
        if kind == 0:
            cv2.rectangle(picture, (x - radius, y - radius), (x + radius, y + radius), 0, -1)
        elif kind == 1:
            cv2.circle(picture, (x, y), radius, 0, -1)
        else:
            corners = [(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)]
            cv2.fillPoly(picture, [np.array(corners, np.int32)], 0)
    return torch.from_numpy(pictures), torch.from_numpy(kinds)


def test_it_learns_shapes_it_has_not_seen() -> None:
    torch.manual_seed(0)
    network = LeNet(classes=3)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    images, kinds = shapes(1000, 1)
    for _ in range(10):
        for batch in torch.randperm(len(images)).split(50):
            optimiser.zero_grad()
            functional.cross_entropy(network(network.normalise(images[batch])), kinds[batch]).backward()
            optimiser.step()
    images, kinds = shapes(300, 2)
    with torch.no_grad():
        right = (network(network.normalise(images)).argmax(1) == kinds).float().mean().item()
    print(f"{right:.1%} right")
    assert right > 0.95
