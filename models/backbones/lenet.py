"""LeNet-5 (LeCun, Bottou, Bengio and Haffner, Proc. IEEE 1998): where it began, for small grey pictures.

With today's parts: ReLU for the scaled tanh, plain average pooling, every map of the second convolution
seeing all of the first, and logits for the radial basis functions at the end. Too small to carry a
detector. Knows nothing of detection.
"""

from __future__ import annotations

from torch import Tensor, nn


class LeNet(nn.Module):
    """Two convolutions and three fully connected layers.

    Args:
        classes: how many to tell apart.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5),  # 32 -> 28, C1
            nn.ReLU(inplace=True),
            nn.AvgPool2d(2),  # 14, S2
            nn.Conv2d(6, 16, 5),  # 10, C3
            nn.ReLU(inplace=True),
            nn.AvgPool2d(2),  # 5, S4
        )
        self.classifier = nn.Sequential(
            nn.Linear(16 * 5 * 5, 120),  # C5
            nn.ReLU(inplace=True),
            nn.Linear(120, 84),  # F6
            nn.ReLU(inplace=True),
            nn.Linear(84, classes),
        )

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 grey (B, 32, 32) to float32 (B, 1, 32, 32): white -0.1, black 1.175, as in the paper."""
        return 1.175 - images[:, None].float() * (1.275 / 255)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised (B, 1, 32, 32) to logits (B, classes)."""
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits
