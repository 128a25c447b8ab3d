"""Scores to probabilities (Platt 1999), by the Newton method of Lin, Lin and Weng (2007).

Knows nothing of where scores come from.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fit_platt(scores: Tensor, positive: Tensor, steps: int = 50) -> tuple[float, float]:
    """``a`` and ``b`` for which ``sigmoid(a * score + b)`` is most likely how often it is a positive.

    Platt's targets, not quite 0 and 1, keep the curve finite where the classes are separate.

    Args:
        scores: float (M,).
        positive: bool (M,).
        steps: of Newton's method, at most.
    """
    x, positives = scores.double().cpu(), int(positive.sum())
    high, low = (positives + 1) / (positives + 2), 1 / (len(x) - positives + 2)
    target = torch.where(positive.cpu(), high, low).double()
    design = torch.stack([x, torch.ones_like(x)], 1)  # (M, 2)
    ab = torch.tensor([0.0, torch.logit(target.mean()).item()], dtype=torch.float64)
    loss = _cross_entropy(design @ ab, target)
    for _ in range(steps):
        p = (design @ ab).sigmoid()
        gradient = design.T @ (p - target)
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + 1e-10 * torch.eye(2, dtype=torch.float64)
        step = torch.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-8 and (new := _cross_entropy(design @ (ab - size * step), target)) > loss:
            size /= 2
        if size <= 1e-8 or gradient.abs().max() < 1e-6:
            break
        ab, loss = ab - size * step, new
    return float(ab[0]), float(ab[1])


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")
