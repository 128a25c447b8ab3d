from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional

from models.backbones.depthwise import DepthwiseConv2d
from models.backbones.efficientnet_lite0 import (
    PIXEL_MEAN,
    PIXEL_STD,
    EfficientNetLite0,
    imagenet_weights_path,
    load_imagenet_weights,
)
from models.coco import load_coco
from models.errors import DataError


@pytest.mark.parametrize("blocks", [12, 13, 16])
def test_every_tensor_comes_from_the_package(blocks: int) -> None:
    backbone = EfficientNetLite0(blocks)
    for tensor in backbone.state_dict().values():
        tensor.fill_(-77)
    load_imagenet_weights(backbone)
    package = torch.load(imagenet_weights_path(), weights_only=True)
    for name, tensor in backbone.state_dict().items():
        assert not (tensor == -77).any(), name
    assert backbone.stem[0][1].weight.equal(package["_conv_stem.weight"])
    last = package[f"_blocks.{blocks - 1}._project_conv.weight"]
    assert backbone.blocks[blocks - 1].project[0].weight.equal(last)


def test_a_missing_tensor_is_refused(tmp_path: Path) -> None:
    package = torch.load(imagenet_weights_path(), weights_only=True)
    del package["_blocks.4._bn1.running_mean"]
    torch.save(package, tmp_path / "weights.pth")
    with pytest.raises(DataError, match=r"'_blocks\.4\._bn1\.running_mean' is missing"):
        load_imagenet_weights(EfficientNetLite0(), tmp_path / "weights.pth")


def test_features_have_their_strides_and_channels() -> None:
    backbone = EfficientNetLite0(13).eval()
    with torch.no_grad():
        features = backbone(torch.zeros(2, 3, 96, 160))
    assert [tuple(x.shape) for x in features] == [(2, 40, 12, 20), (2, 112, 6, 10), (2, 192, 3, 5)]
    assert backbone.channels == (40, 112, 192)


def test_the_weights_know_a_cat_from_a_bus(shared: Path) -> None:
    """The whole network with the package's own classifier: normalisation, padding and order are right."""
    annotations = shared / "data" / "coco-mini" / "instances_val.json"
    examples = load_coco(annotations, annotations.parent / "images", ("cat", "bus"))
    wanted = {
        0: range(281, 286),
        1: (654, 779, 874),
    }  # ImageNet's house cats; minibus, school and trolley bus
    package = torch.load(imagenet_weights_path(), weights_only=True)
    backbone = EfficientNetLite0()
    load_imagenet_weights(backbone)
    backbone.eval()
    right = total = 0
    for example in examples:
        for box, class_ in zip(example.boxes.astype(int), example.classes, strict=True):
            if (box[2] - box[0]) * (box[3] - box[1]) > 12_000:
                crop = example.read()[box[1] : box[3], box[0] : box[2]]
                right += _classified(backbone, package, crop) in wanted[int(class_)]
                total += 1
    print(f"{right} of {total} right")
    assert total >= 15
    assert right / total > 0.5  # of a thousand classes; many are cut off or half hidden


def _classified(
    backbone: EfficientNetLite0, package: dict[str, torch.Tensor], crop: npt.NDArray[np.uint8]
) -> int:
    resized = cv2.resize(crop, (224, 224), interpolation=cv2.INTER_AREA)
    images = (torch.from_numpy(resized).permute(2, 0, 1)[None].float() - PIXEL_MEAN) / PIXEL_STD
    with torch.no_grad():
        x = functional.conv2d(backbone(images)[2], package["_conv_head.weight"])
        x = functional.batch_norm(
            x,
            package["_bn1.running_mean"],
            package["_bn1.running_var"],
            package["_bn1.weight"],
            package["_bn1.bias"],
            eps=1e-3,
        )
        logits = functional.relu6(x).mean((2, 3)) @ package["_fc.weight"].T + package["_fc.bias"]
    return int(logits.argmax())


def test_depthwise_convolutions_stay_exact_under_autocast() -> None:
    layer = DepthwiseConv2d(8, 5, padding=2)
    x = torch.rand(1, 8, 12, 12).bfloat16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
    reference = functional.conv2d(x.double(), layer.weight.double(), padding=2, groups=8)
    assert found.dtype == torch.bfloat16
    difference = (found.double() - reference).abs()
    print(f"max {difference.max():.2e} mean {difference.mean():.2e}")
    assert (difference <= reference.abs() * 2**-8 + 1e-6).all()  # one rounding, at the end
