"""What Darknet's layers compute, each with the quirks that its published networks rely on.

Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.boxes import cxcywh_to_xyxy

BATCH_NORM_EPSILON = 1e-6
"""Darknet adds 0.000001 to the standard deviation; beside a variance that is the nearest that torch has."""

LEAK = 0.1

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky": lambda: nn.LeakyReLU(LEAK),
    "linear": nn.Identity,
    "logistic": nn.Sigmoid,
    "relu": nn.ReLU,
}


class Convolutional(nn.Module):
    """Convolution, batch norm or bias, activation."""

    def __init__(
        self,
        inputs: int,
        filters: int,
        size: int,
        stride: int,
        padding: int,
        groups: int,
        normalised: bool,
        act: nn.Module,
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            inputs, filters, size, stride, padding, groups=groups, bias=not normalised
        )
        self.norm = nn.BatchNorm2d(filters, eps=BATCH_NORM_EPSILON) if normalised else None
        self.activation = act

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, filters, H / stride, W / stride)."""
        x = self.convolution(x)
        out: Tensor = self.activation(x if self.norm is None else self.norm(x))
        return out


class MaxPool(nn.Module):
    """Max pooling with ``padding`` pixels in all on each axis, the odd one of them after the picture.

    So size 2 with stride 1 keeps the shape, and size 2 with stride 2 rounds it up. Repeating the border is
    the same as padding with minus infinity: every window holds a part of the picture.
    """

    def __init__(self, size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.size, self.stride, self.padding = size, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, (H + padding - size) // stride + 1, ...), as Darknet counts."""
        before = self.padding // 2
        after_x, after_y = (self._after(side, before) for side in (x.shape[3], x.shape[2]))
        if before or after_x or after_y:
            x = functional.pad(x, (before, after_x, before, after_y), mode="replicate")
        return functional.max_pool2d(x, self.size, self.stride)

    def _after(self, side: int, before: int) -> int:
        """As far as the last window reaches, not further: most networks then need no padding at all."""
        last = (side + self.padding - self.size) // self.stride * self.stride
        return max(0, last + self.size - before - side)


class Route(nn.Module):
    """The outputs of earlier layers, one after the other along the channels."""

    def __init__(self, sources: list[int]) -> None:
        super().__init__()
        self.sources = sources

    def forward(self, earlier: list[Tensor]) -> Tensor:
        """All outputs so far, (B, C, H, W) each, to (B, the sources' channels in all, H, W)."""
        return torch.cat([earlier[source] for source in self.sources], 1)


class Shortcut(nn.Module):
    """The output of the layer before plus that of an earlier one."""

    def __init__(self, source: int, act: nn.Module) -> None:
        super().__init__()
        self.source, self.activation = source, act

    def forward(self, earlier: list[Tensor]) -> Tensor:
        """All outputs so far to one of the last one's shape."""
        out: Tensor = self.activation(earlier[-1] + earlier[self.source])
        return out


class Reorg(nn.Module):
    """Space to depth, in Darknet's own order.

    Its kernel walks (C, H, W) numbers as if they were (C / s^2, H s, W s), and gathers from that: the
    s x s neighbours that it takes apart are no neighbours in the picture. YOLOv2's weights were trained on it.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C * stride^2, H / stride, W / stride)."""
        _, channels, height, width = x.shape
        stride = self.stride
        taken = x.reshape(-1, channels // stride**2, height, stride, width, stride)  # as if s times as large
        gathered = taken.permute(0, 3, 5, 1, 2, 4)  # (B, s, s, C / s^2, H, W)
        return gathered.reshape(-1, channels * stride**2, height // stride, width // stride)


class Upsample(nn.Module):
    """Every pixel becomes ``stride`` x ``stride`` pixels."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = float(stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H * stride, W * stride)."""
        return functional.interpolate(x, scale_factor=self.stride)


class Head(nn.Module):
    """Boxes around anchors, K a cell (YOLOv2, arXiv 1612.08242; YOLOv3, arXiv 1804.02767).

    Args:
        anchors: K widths and heights in input pixels.
        classes: C.
        exclusive: whether an object is of one class alone (``region``), or of any that fit (``yolo``).
    """

    anchors: Tensor

    def __init__(self, anchors: list[tuple[float, float]], classes: int, exclusive: bool) -> None:
        super().__init__()
        self.register_buffer("anchors", torch.tensor(anchors), persistent=False)  # (K, 2)
        self.classes, self.exclusive = classes, exclusive

    def decode(self, x: Tensor, input_height: int, input_width: int) -> tuple[Tensor, Tensor]:
        """What (B, K (5 + C), h, w) means: boxes (B, h w K, 4), xyxy in input pixels, scores (B, h w K, C)."""
        rows, columns = x.shape[2:]
        raw = x.reshape(-1, len(self.anchors), 5 + self.classes, rows, columns)
        raw = raw.permute(0, 3, 4, 1, 2)  # (B, h, w, K, 5 + C)
        row = torch.arange(rows, device=x.device)[:, None].expand(rows, columns)
        column = torch.arange(columns, device=x.device)[None].expand(rows, columns)
        place = torch.stack([column, row], 2)[:, :, None]  # (h, w, 1, 2)
        pixels = raw.new_tensor([input_width / columns, input_height / rows])
        centre = (raw[..., :2].sigmoid() + place) * pixels
        size = raw[..., 2:4].exp() * self.anchors
        classes = raw[..., 5:].softmax(4) if self.exclusive else raw[..., 5:].sigmoid()
        scores = raw[..., 4:5].sigmoid() * classes
        return cxcywh_to_xyxy(torch.cat([centre, size], 4)).flatten(1, 3), scores.flatten(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Unchanged: what it means, ``decode`` says."""
        return x
