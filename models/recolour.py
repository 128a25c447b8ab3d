"""Random colours of a whole batch, on the training's device: what :mod:`models.augment` does to one picture.

A third of a worker's time goes into colours where pictures lie decoded in memory, and a GPU has time to spare.
"""

from __future__ import annotations

import torch
from torch import Tensor


def recoloured(images: Tensor, colours: Tensor) -> Tensor:
    """Pictures of other hue, saturation and brightness.

    Follows the hexcone model of HSV (A. R. Smith, Color gamut transform pairs, SIGGRAPH 1978), as OpenCV does.

    Args:
        images: uint8 RGB (B, H, W, 3).
        colours: float32 (B, 3), as :class:`models.sample.Sample` has them.

    Returns:
        uint8 RGB (B, H, W, 3), on the same device.
    """
    hue, saturation, brightness = colours[:, :, None, None].unbind(1)
    pixels = images.float()
    red, green, blue = pixels.unbind(-1)
    value, least = pixels.amax(-1), pixels.amin(-1)
    chroma = value - least
    span = chroma.clamp(min=1)
    sixth = torch.where(
        value == red,
        (green - blue) / span,
        torch.where(value == green, 2 + (blue - red) / span, 4 + (red - green) / span),
    )
    sixth = sixth + 6 * hue
    share = (saturation * chroma / value.clamp(min=1)).clamp(max=1)
    value = (brightness * value).clamp(max=255)
    channels = []
    for corner in (5, 3, 1):
        along = (corner + sixth) % 6
        channels.append(value * (1 - share * torch.minimum(along, 4 - along).clamp(0, 1)))
    return torch.stack(channels, -1).round().to(torch.uint8)
