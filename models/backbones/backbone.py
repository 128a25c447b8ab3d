"""What detectors ask of a backbone, and what a classifier has besides.

A detector runs ``trunk`` once over the picture, cuts regions of ``pool_size`` out of that map, and puts
``top`` on each of them. Knows nothing of any one architecture.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from models.backbones.published import published_weights
from models.errors import DataError

Triple = tuple[float, float, float]


class Backbone(nn.Module):
    """Convolutions that learned on ImageNet.

    Attributes:
        mean, std: of the three RGB channels, in pixel values 0 to 255.
        stride: input pixels a cell of the trunk's map.
        trunk_channels: of the trunk's map.
        pool_size: height and width of what ``top`` takes.
        top_channels: how many numbers ``top`` gives a region.
        frozen_norm: whether batch norm keeps its statistics in training too: those of a few pictures, or of
            regions that overlap, are poor ones (He et al., arXiv 1512.03385, appendix A).
    """

    mean: ClassVar[Triple]
    std: ClassVar[Triple]
    stride: ClassVar[int] = 16
    pool_size: ClassVar[int]
    trunk_channels: int
    top_channels: int
    frozen_norm: bool = False

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen_norm:
            for layer in self.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()
        return self

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 RGB (B, H, W, 3) to float32 (B, 3, H, W) as the other methods expect it."""
        mean, std = (torch.tensor(values, device=images.device) for values in (self.mean, self.std))
        return (images.permute(0, 3, 1, 2).float() - mean[:, None, None]) / std[:, None, None]

    def trunk(self, images: Tensor) -> Tensor:
        """Normalised float (B, 3, H, W) to the map that all regions share (B, trunk_channels, h, w).

        h is about H / stride: networks that do not pad their first layers have a cell or two less.
        """
        raise NotImplementedError

    def top(self, regions: Tensor) -> Tensor:
        """(R, trunk_channels, pool_size, pool_size) to (R, top_channels)."""
        raise NotImplementedError

    def early(self, blocks: int) -> Iterable[nn.Module]:
        """The first layers and the first ``blocks`` stages, what a recipe may freeze; nothing for 0."""
        raise NotImplementedError

    def load_imagenet(self) -> None:
        """Load ImageNet weights that are on this machine; nothing is downloaded.

        Raises:
            DataError: there are none, or they are of another network.
        """
        raise NotImplementedError


class Classifier(Backbone):
    """A backbone whose tensors have the names and shapes of torchvision's, so that its checkpoints load.

    Attributes:
        head: the layer that gives the logits.
        extras: what else a published file may hold and a network lack.
        published: the file's name at torchvision, empty where there is none.
    """

    mean = (123.675, 116.28, 103.53)
    std = (58.395, 57.12, 57.375)
    head: ClassVar[str]
    extras: ClassVar[tuple[str, ...]] = ()
    published: str

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 1000) of normalised images (B, 3, H, W)."""
        raise NotImplementedError

    def drop_head(self) -> None:
        """Do without the logits; ``forward`` then gives what the head was given."""
        self.set_submodule(self.head, nn.Identity())

    def load_torchvision(self, path: Path) -> None:
        """Load a checkpoint that torchvision published for this network.

        Raises:
            DataError: the file is missing, no checkpoint, or of another network.
        """
        spare = tuple(f"{name}." for name in (self.head, *self.extras))
        expected = f"torchvision's weights, {self.published or type(self).__name__}"
        weights = published_weights(path, self.state_dict(), spare, expected)
        self.load_state_dict(weights, strict=True)

    def load_imagenet(self) -> None:
        """Load torchvision's checkpoint from where torchvision keeps its downloads."""
        if not self.published:
            raise DataError(
                f"{type(self).__name__}: torchvision published no ImageNet weights for it; "
                "start untrained (pretrained: false), or take alexnet"
            )
        path = Path(torch.hub.get_dir()) / "checkpoints" / self.published
        if not path.is_file():
            raise DataError(
                f"{type(self).__name__}: its ImageNet weights are not at {path}; put "
                f"https://download.pytorch.org/models/{self.published} there"
            )
        self.load_torchvision(path)


def initialise(network: nn.Module) -> None:
    """Random weights for training from nothing (He et al., arXiv 1502.01852)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
