"""Image classifiers whose convolutions carry the detectors, by name.

Knows nothing of detection.
"""

from __future__ import annotations

from collections.abc import Callable

from models.backbones.alexnet import AlexNet
from models.backbones.backbone import Backbone, Classifier
from models.backbones.efficientnet_lite0 import EfficientNetLite0
from models.backbones.googlenet import GoogLeNet
from models.backbones.mobilenet_v2 import MobileNetV2
from models.backbones.resnet import ResNet
from models.backbones.vgg import VGG16
from models.backbones.zfnet import ZFNet

BACKBONES: dict[str, Callable[[], Backbone]] = {
    "efficientnet_lite0": EfficientNetLite0,
    "alexnet": AlexNet,
    "zfnet": ZFNet,
    "vgg16": VGG16,
    "googlenet": GoogLeNet,
    "resnet18": lambda: ResNet(18),
    "resnet34": lambda: ResNet(34),
    "resnet50": lambda: ResNet(50),
    "resnet101": lambda: ResNet(101),
    "mobilenet_v2": MobileNetV2,
}


def build_backbone(name: str, pretrained: bool = False, frozen_norm: bool = False) -> Backbone:
    """A backbone for a detector: without the layer that tells ImageNet's classes.

    Args:
        name: one of ``BACKBONES``.
        pretrained: with ImageNet weights, as :meth:`Backbone.load_imagenet` finds them.
        frozen_norm: see :class:`Backbone`.

    Raises:
        ValueError: there is none of this name.
        DataError: its ImageNet weights are not on this machine.
    """
    if name not in BACKBONES:
        raise ValueError(f"there is no backbone {name!r}; expected one of {', '.join(BACKBONES)}")
    backbone = BACKBONES[name]()
    backbone.frozen_norm = frozen_norm
    if isinstance(backbone, Classifier):
        backbone.drop_head()
    if pretrained:
        backbone.load_imagenet()
    return backbone
