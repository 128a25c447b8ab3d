"""How large a backbone's map is. Knows nothing of what is done with it."""

from __future__ import annotations

import torch

from models.backbones.backbone import Backbone


@torch.no_grad()
def map_shape(backbone: Backbone, height: int, width: int) -> tuple[int, int, int]:
    """Channels, rows and columns of the trunk's map of a picture of height x width pixels, by making one.

    A network that does not pad its first layers has a cell or two less than a stride would say.
    """
    training = backbone.training
    backbone.eval()  # batch norm must not learn from it
    _, channels, rows, columns = backbone.trunk(torch.zeros(1, 3, height, width)).shape
    backbone.train(training)
    return channels, rows, columns
