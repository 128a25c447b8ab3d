"""An exponential moving average of a model's weights.

Knows nothing of what the model is.
"""

from __future__ import annotations

import copy
import math
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

_RAMP_SHARE = 0.2

Model = TypeVar("Model", bound=nn.Module)


class MovingAverage(Generic[Model]):
    """A shadow of ``model`` that follows its weights, quickly at first.

    After ``n`` updates the decay is ``decay * (1 - exp(-n / ramp))``, so that the random start is
    forgotten early; ``ramp`` is a fifth of the averaging window's length.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        self._ramp = max(1.0, _RAMP_SHARE / max(1e-6, 1 - decay))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the shadow towards ``model``; integer buffers are copied."""
        self.updates += 1
        decay = self.decay * (1 - math.exp(-self.updates / self._ramp))
        current: dict[str, Tensor] = model.state_dict()
        for name, shadow in self.model.state_dict().items():
            if shadow.is_floating_point():
                shadow.lerp_(current[name], 1 - decay)
            else:
                shadow.copy_(current[name])
