from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch
from torch.nn import functional

from models.backbones.depthwise import DepthwiseConv2d
from models.backbones.efficientnet_lite0 import (
    EfficientNetLite0,
    ImageNetHead,
    imagenet_weights_path,
    load_imagenet_weights,
)
from models.errors import DataError
from tests.models.backbones.crops import cats_and_buses


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


def test_skipped_blocks_leave_their_shortcuts() -> None:
    whole, less = EfficientNetLite0(13).eval(), EfficientNetLite0(13, (7, 9, 12)).eval()
    whole.load_imagenet()
    less.load_imagenet()
    for index in (7, 9, 12):
        torch.nn.init.zeros_(whole.blocks[index].project[1].weight)
        torch.nn.init.zeros_(whole.blocks[index].project[1].bias)
    with torch.no_grad():
        for one, other in zip(whole(torch.ones(1, 3, 64, 64)), less(torch.ones(1, 3, 64, 64)), strict=True):
            assert torch.allclose(one, other, atol=1e-6)
    with pytest.raises(ValueError, match=r"block 5 has no shortcut.*\[2, 4, 6, 7, 9, 10, 12, 13, 14\]"):
        EfficientNetLite0(13, (5,))


def test_trunk_and_top_are_the_network_cut_at_stride_16() -> None:
    backbone = EfficientNetLite0().eval()
    images = backbone.normalise(torch.randint(0, 256, (1, 96, 160, 3), dtype=torch.uint8))
    with torch.no_grad():
        _, at_16, at_32 = backbone(images)
        trunk = backbone.trunk(images)
        top = backbone.top(trunk)
        regions = backbone.top(torch.rand(3, backbone.trunk_channels, backbone.pool_size, backbone.pool_size))
    assert trunk.equal(at_16)
    assert torch.allclose(top, at_32.mean((2, 3)), atol=1e-6)
    assert regions.shape == (3, backbone.top_channels)


def test_the_weights_know_a_cat_from_a_bus(shared: Path) -> None:
    """The whole network: normalisation, padding and order are right."""
    backbone, head = EfficientNetLite0(), ImageNetHead()
    for part in (backbone, head):
        part.load_imagenet()
        part.eval()
    crops = cats_and_buses(shared)
    right = 0
    for crop, wanted in crops:
        resized = cv2.resize(crop, (224, 224), interpolation=cv2.INTER_AREA)
        with torch.no_grad():
            logits = head(backbone(backbone.normalise(torch.from_numpy(resized)[None]))[2])
        right += int(logits.argmax()) in wanted
    print(f"{right} of {len(crops)} right")
    assert len(crops) >= 15
    assert right / len(crops) > 0.5  # of a thousand classes; many are cut off or half hidden


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
