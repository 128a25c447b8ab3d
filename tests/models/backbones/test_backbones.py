from __future__ import annotations

import pytest
import torch

from models.backbones import BACKBONES, build_backbone
from models.backbones.alexnet import AlexNet
from models.backbones.backbone import Classifier
from models.backbones.vgg import VGG16
from models.backbones.zfnet import ZFNet
from tests.models.backbones.fill import filled, picture

# name -> the trunk's map of a 96x160 picture, what top gives
EXPECTED = {
    "efficientnet_lite0": ((112, 6, 10), 320),
    "alexnet": ((256, 5, 9), 4096),
    "zfnet": ((256, 5, 9), 4096),
    "vgg16": ((512, 6, 10), 4096),
    "googlenet": ((832, 6, 10), 1024),
    "resnet18": ((256, 6, 10), 512),
    "resnet34": ((256, 6, 10), 512),
    "resnet50": ((1024, 6, 10), 2048),
    "resnet101": ((1024, 6, 10), 2048),
    "mobilenet_v2": ((96, 6, 10), 1280),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_trunk_and_top_have_the_shapes_they_say(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name)
        images = backbone.normalise(torch.zeros(2, 96, 160, 3, dtype=torch.uint8))
        trunk = backbone.trunk(images)
        top = backbone.top(torch.zeros(5, backbone.trunk_channels, backbone.pool_size, backbone.pool_size))
    shape, channels = EXPECTED[name]
    assert images.shape == (2, 3, 96, 160)
    assert trunk.shape == (2, *shape)
    assert trunk.shape[1] == backbone.trunk_channels
    assert top.shape == (5, channels)
    assert channels == backbone.top_channels


@pytest.mark.parametrize("name", BACKBONES)
def test_early_grows_from_the_first_layer_on(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name)
    order = [id(parameter) for parameter in backbone.parameters()]
    frozen: list[int] = []
    for blocks in range(4):
        before = len(frozen)
        frozen = [id(parameter) for layer in backbone.early(blocks) for parameter in layer.parameters()]
        assert frozen == order[: len(frozen)]
        assert len(frozen) > before or blocks == 0
    assert not list(backbone.early(0))


@pytest.mark.parametrize("build", [AlexNet, VGG16, ZFNet])
def test_the_whole_network_is_head_of_top_of_the_pooled_trunk(build: type[AlexNet | VGG16 | ZFNet]) -> None:
    """At 224x224 the last pooling gives just what the fully connected layers take."""
    with torch.device("meta"):
        network = build()
    filled(network)
    images = network.normalise(picture(224, 224))
    with torch.no_grad():
        pooled = network.features[-1](network.trunk(images))
        assert pooled.shape[2:] == (network.pool_size, network.pool_size)
        logits = network.get_submodule(network.head)(network.top(pooled))
        assert torch.allclose(logits, network(images), atol=1e-5)


def test_normalise_is_the_mean_and_deviation_of_each_channel() -> None:
    pixels = torch.tensor([[[[0, 255, 128]]]], dtype=torch.uint8)
    expected = {  # by hand: torchvision's (x / 255 - mean) / deviation; -1 to 1; (x - 127) / 128
        "resnet18": (-2.117904, 2.428571, 0.426492),
        "googlenet": (-1.0, 1.0, 0.003922),
        "efficientnet_lite0": (-0.992188, 1.0, 0.007812),
    }
    for name, values in expected.items():
        found = BACKBONES[name]().normalise(pixels)
        assert found.shape == (1, 3, 1, 1)
        assert found.flatten().tolist() == pytest.approx(values, abs=2e-6)


def test_a_detectors_backbone_has_no_head() -> None:
    with torch.device("meta"):
        backbone = build_backbone("mobilenet_v2")
        assert isinstance(backbone, Classifier)
        assert not any(name.startswith("classifier") for name in backbone.state_dict())
        assert backbone(torch.zeros(1, 3, 64, 64)).shape == (1, 1280)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no backbone 'vgg17'; expected one of efficientnet_lite0, "):
        build_backbone("vgg17")


def test_zfnet_is_the_papers() -> None:
    """Figure 3's sizes, the sum of its weights by hand, and the response normalisation by its formula."""
    with torch.device("meta"):
        network = ZFNet()
        x, sizes = torch.zeros(1, 3, 224, 224), []
        for layer in network.features:
            x = layer(x)
            if x.shape[2] not in sizes:
                sizes.append(x.shape[2])
    assert sizes == [110, 55, 26, 13, 6]
    convolutions = 14_208 + 614_656 + 885_120 + 1_327_488 + 884_992
    assert sum(p.numel() for p in network.parameters()) == convolutions + 37_752_832 + 16_781_312 + 4_097_000
    found = network.features[3](torch.full((1, 96, 1, 1), 10.0))
    assert found[0, 48].item() == pytest.approx(10 / (2 + 1e-4 * 5 * 10**2) ** 0.75)
    assert found[0, 0].item() == pytest.approx(10 / (2 + 1e-4 * 3 * 10**2) ** 0.75)  # two of five are outside
