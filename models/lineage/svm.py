"""A linear support vector machine (Cortes and Vapnik 1995), solved exactly.

Minimises ``|w|^2 / 2 + sum of cost_i * max(0, 1 - y_i (w x_i + b))`` by dual coordinate descent (Hsieh,
Chang, Lin, Keerthi and Sundararajan, ICML 2008): one example's multiplier at a time, and those that
stay at a bound are left alone for a while. The solution is judged by its duality gap, which bounds how
far it is from the best one. It can start from where a former one ended, as mining of negatives does.
Weights may have a least value: they are then the nearest allowed to what the multipliers add up to.

Knows nothing of pictures or features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_SHRINK = 1e-9
"""A multiplier at its bound whose gradient is farther than this from moving it waits for the next round."""

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Svm:
    """``weights @ x + bias`` is positive for positives, and beyond 1 where it cost nothing."""

    weights: Tensor
    """float32 (D,)."""
    bias: float
    multipliers: Tensor
    """float32 (M,), 0 to the example's cost: how much each example holds the solution where it is."""
    loss: float
    """What was minimised; the bias counts as a weight (of ``bias_scale``)."""
    gap: float
    """``loss`` is at most this above the least possible."""


def fit_svm(
    features: Tensor,
    positive: Tensor,
    cost: Tensor | float,
    *,
    bias_scale: float = 10.0,
    tolerance: float = 1e-3,
    passes: int = 1000,
    start: Tensor | None = None,
    seed: int = 0,
    least: Tensor | None = None,
) -> Svm:
    """Fit a linear classifier of two classes.

    Args:
        features: float32 (M, D), on any device; the solver runs on the CPU.
        positive: bool (M,).
        cost: what a unit of hinge loss costs; float32 (M,), or the same for all.
        bias_scale: the bias is a weight of a feature that is always this; the larger, the less it is
            drawn to 0.
        tolerance: stop when the gap is at most this part of the loss,
        passes: or after so many passes over the examples.
        start: multipliers float32 (M,) to start from.
        seed: of the order in which examples are visited.
        least: what each weight is at least, float32 (D,); -inf does not bind.

    Raises:
        ValueError: the shapes differ, or there are not examples of both kinds.
    """
    count = len(features)
    if features.ndim != 2 or positive.shape != (count,) or positive.all() or not positive.any():
        raise ValueError(
            f"expected features (M, D) and labels (M,) with both kinds of example, not "
            f"{tuple(features.shape)} and {tuple(positive.shape)} with {int(positive.sum())} positive"
        )
    x = np.empty((count, features.shape[1] + 1), np.float32)
    x[:, :-1], x[:, -1] = features.cpu().numpy(), bias_scale
    x[~positive.cpu().numpy()] *= -1  # y_i x_i: every example should score above 1
    bounds = np.broadcast_to(torch.as_tensor(cost).cpu().numpy(), (count,)).astype(np.float64)
    alphas = np.zeros(count) if start is None else np.clip(start.cpu().numpy().astype(np.float64), 0, bounds)
    floor = np.full(x.shape[1], -np.inf, np.float32)
    if least is not None:
        floor[:-1] = least.cpu().numpy()
    solved = _Solution(x, bounds, alphas, floor)
    loss, gap = solved.descend(tolerance, passes, np.random.default_rng(seed))
    weights = solved.weights
    return Svm(
        weights=torch.from_numpy(weights[:-1].copy()),
        bias=float(weights[-1]) * bias_scale,
        multipliers=torch.from_numpy(alphas.astype(np.float32)),
        loss=loss,
        gap=gap,
    )


class _Solution:
    """Multipliers on the way to the best, and the weights that follow from them."""

    def __init__(self, x: Floats, bounds: Doubles, alphas: Doubles, floor: Floats) -> None:
        self.x, self.bounds, self.alphas, self.floor = x, bounds, alphas, floor
        self.squares: Doubles = np.einsum("ij,ij->i", x, x, dtype=np.float64)
        self.add_up()

    def add_up(self) -> None:
        """Sum and weights, both (D,), without the rounding of many small steps."""
        self.sum: Floats = (self.alphas @ self.x).astype(np.float32)
        self.weights: Floats = np.maximum(self.sum, self.floor)

    def descend(self, tolerance: float, passes: int, rng: np.random.Generator) -> tuple[float, float]:
        """Change the multipliers until the gap is closed; the loss and its gap."""
        active = np.arange(len(self.x))
        for done in range(passes):
            moved = [int(i) for i in rng.permutation(active) if self.move(int(i))]
            active = np.array(moved, np.int64)
            # What waits is looked at again when the rest has settled, and every few passes.
            if len(active) == 0 or done % 10 == 9:
                self.add_up()
                loss, gap = self.judged()
                if gap <= tolerance * loss:
                    break
                active = np.arange(len(self.x))
        return self.judged()

    def move(self, i: int) -> bool:
        """Set one multiplier to its best, given the others; whether it is not just stuck at a bound."""
        slope = float(self.x[i] @ self.weights) - 1
        old = self.alphas[i]
        if (old <= 0 and slope > _SHRINK) or (old >= self.bounds[i] and slope < -_SHRINK):
            return False
        new = min(max(old - slope / self.squares[i], 0.0), self.bounds[i])
        if new != old:
            self.alphas[i] = new
            self.sum += np.float32(new - old) * self.x[i]
            np.maximum(self.sum, self.floor, out=self.weights)
        return True

    def judged(self) -> tuple[float, float]:
        """The loss that is minimised, and how far it may be above the least: the dual is always below."""
        weights, total = self.weights.astype(np.float64), self.sum.astype(np.float64)
        half_square = float(weights @ weights) / 2
        hinges = np.maximum(0, 1 - (self.x @ self.weights).astype(np.float64))
        loss = half_square + float(self.bounds @ hinges)
        return loss, loss - (float(self.alphas.sum()) + half_square - float(weights @ total))
