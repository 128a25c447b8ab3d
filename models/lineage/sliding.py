"""What detectors of windows that slide over a pyramid have in common.

Their candidates are the same windows in every picture of the input's size; they differ in how a window
is scored, and how that is learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from models.coco import Example
from models.detector import Config, Detector
from models.errors import DataError
from models.lineage.calibration import curve_of, judge
from models.lineage.mining import Scene
from models.lineage.pyramid import Windows, object_boxes

CALIBRATED = 200
"""Pictures on which probabilities are measured, at most."""


class SlidingDetector(Detector):
    """A score for every window of every class, which a curve turns into how likely a detection is right."""

    nms_threshold = 0.3  # R-CNN's; at Felzenszwalb's 0.5 people keep a second box
    axes: Tensor
    curves: Tensor
    aspect: Tensor

    def __init__(self, config: Config, windows: Windows) -> None:
        super().__init__()
        self.config = config
        self.windows = windows
        self.register_buffer("axes", windows.axes, persistent=False)
        self.register_buffer("curves", torch.tensor([[1.0, 0.0]]).repeat(len(config.names), 1))  # Platt's
        self.register_buffer("aspect", torch.tensor(0.4))  # an object's width as a part of its height

    def window_scores(self, images: Tensor) -> Tensor:
        """Before the curve: normalised images (B, 3, H, W) to float32 (B, N, C), any number."""
        raise NotImplementedError

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 RGB (B, H, W, 3) to float32 (B, 3, H, W), still 0 to 255."""
        return images.permute(0, 3, 1, 2).float()

    def decode(self, images: Tensor, proposals: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Candidates, one a window of any level."""
        likely = (self.window_scores(images) * self.curves[:, 0] + self.curves[:, 1]).sigmoid()
        return self.boxes().expand(images.shape[0], -1, -1), likely

    def boxes(self) -> Tensor:
        """What every window surrounds, inside the input: float32 (N, 4)."""
        boxes = object_boxes(self.axes, self.aspect)
        x, y = boxes[:, 0::2], boxes[:, 1::2]
        x, y = x.clamp(0, self.config.input_width), y.clamp(0, self.config.input_height)
        return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)

    def scene(self, example: Example) -> Scene:
        """A training picture as the detector sees it."""
        return Scene.of(example, self.config.input_height, self.config.input_width)

    def picture(self, scene: Scene) -> Tensor:
        """Normalised, float32 (1, 3, H, W), where the detector is."""
        return self.normalise(scene.image[None].to(self.axes.device))

    def start_from_imagenet(self) -> None:
        raise DataError(f"{self.family}: has no backbone to start from ImageNet; set pretrained: false")

    def early(self, blocks: int) -> Iterable[nn.Module]:
        return ()

    def calibrate(self, scenes: list[Scene], say: Callable[[str], None]) -> None:
        """Fit each class's curve to what is found in pictures, and whether it is right."""
        boxes = self.boxes().cpu()
        scores = [self.window_scores(self.picture(scene))[0].cpu() for scene in scenes]
        for class_, name in enumerate(self.config.names):
            curve = curve_of(
                judge(scene, class_, boxes, each[:, class_], self.nms_threshold)
                for scene, each in zip(scenes, scores, strict=True)
            )
            self.curves[class_] = torch.tensor([curve.slope, curve.offset])
            say(f"{name}, calibrated: {curve.right} right and {curve.wrong} wrong detections")
