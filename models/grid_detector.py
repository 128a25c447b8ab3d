"""What detectors have in common that predict a box in every cell of YOLOX's three strides (arXiv 2107.08430)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.detector import Detector
from models.grid import STRIDES, decode_boxes, grid
from models.losses import detection_loss
from models.target import Target


class GridDetector(Detector):
    """A network whose ``forward`` gives raw predictions of every cell.

    Of normalised images (B, 3, H, W), H and W multiples of 32, these are (B, N, 5 + C): x and y offset from the cell in
    cells, log width and log height in cells, objectness logit, C class logits. N runs over the cells as in
    :func:`models.grid.grid`.
    """

    def blocks(self) -> list[nn.Module]:
        """The backbone, as a chain: each is handed the map that the one before gave; see :meth:`stages`."""
        raise NotImplementedError

    def ends(self) -> list[nn.Module]:
        """The layers whose outputs, after an activation, are the maps of :meth:`blocks` and then of :meth:`mixed`.

        In the order in which they run; nothing where the maps are not activated.
        """
        return []

    def stages(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W) to the maps of the last three blocks, (B, ?, h, w) at strides 8, 16, 32."""
        found = [images]
        for block in self.blocks():
            found.append(block(found[-1]))
        return found[-len(STRIDES) :]

    def mixed(self, stages: list[Tensor]) -> list[Tensor]:
        """:meth:`stages` to the maps that are predicted from, at the same strides."""
        raise NotImplementedError

    def features(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W) to the maps that are predicted from, (B, ?, h, w) at strides 8, 16, 32."""
        return self.mixed(self.stages(images))

    def predict(self, maps: list[Tensor]) -> Tensor:
        """:meth:`features` to raw predictions (B, N, 5 + C)."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to raw predictions (B, N, 5 + C)."""
        return self.predict(self.features(images))

    def decode(self, images: Tensor, proposals: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Candidates, one a cell; a score is objectness times class probability."""
        return self.decode_of(self.features(images), images)

    def decode_of(self, maps: list[Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`decode` where the :meth:`features` of the images are known."""
        raw = self.predict(maps).float()
        where = grid(images.shape[2], images.shape[3], raw.device)
        return decode_boxes(raw, where), raw[..., 4:5].sigmoid() * raw[..., 5:].sigmoid()

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        return self.losses_of(self.features(images), images, targets)

    def losses_of(self, maps: list[Tensor], images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """:meth:`losses` where the :meth:`features` of the images are known."""
        raw = self.predict(maps)
        with torch.autocast(images.device.type, enabled=False):
            where = grid(images.shape[2], images.shape[3], images.device)
            return detection_loss(raw.float(), where, targets).weighted()
