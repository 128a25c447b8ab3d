"""Reference boxes of the region proposal network: every cell of a map has the same few, around itself.

Faster R-CNN (arXiv 1506.01497) takes three sizes times three shapes on one map; with a feature pyramid
(arXiv 1612.03144) each level has one size of its own. Knows nothing of pictures or networks.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cell_anchors(sizes: tuple[int, ...], ratios: tuple[float, ...]) -> Tensor:
    """The anchors around the origin, corners rounded to whole pixels (halves to the even one).

    Args:
        sizes: square roots of the areas, in input pixels.
        ratios: heights by widths.

    Returns:
        float32 (len(ratios) * len(sizes), 4), xyxy; sizes change fastest.
    """
    roots = torch.tensor(ratios, dtype=torch.float32).sqrt()[:, None]
    lengths = torch.tensor(sizes, dtype=torch.float32)[None]
    widths, heights = (lengths / roots).flatten(), (lengths * roots).flatten()
    return (torch.stack([-widths, -heights, widths, heights], 1) / 2).round()


def anchors(around: Tensor, map_height: int, map_width: int, steps: tuple[int, int], centre: float) -> Tensor:
    """The anchors of a whole map.

    Args:
        around: float32 (A, 4), as :func:`cell_anchors` gives them.
        map_height: h, in cells.
        map_width: w, in cells.
        steps: input pixels from a cell to the one below, and to the one on its right.
        centre: where in its cell an anchor's centre is: 0.5 in the middle, 0 at the top left corner.

    Returns:
        float32 (h * w * A, 4), xyxy in input pixels: row by row, cell by cell, anchor by anchor.
    """
    down = (torch.arange(map_height, device=around.device) + centre) * steps[0]
    right = (torch.arange(map_width, device=around.device) + centre) * steps[1]
    y, x = torch.meshgrid(down, right, indexing="ij")
    centres = torch.stack([x, y, x, y], 2).view(-1, 1, 4)
    return (centres + around).view(-1, 4)
