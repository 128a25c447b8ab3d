"""torchvision's checkpoints fit, and give what torchvision's own code gives for the same weights."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.coco_names import COCO_CATEGORIES
from models.errors import DataError
from models.lineage.faster_rcnn_fpn import FasterRcnnFpn, FasterRcnnFpnConfig
from models.lineage.fpn import levels_of, pyramid_roi_align
from models.lineage.roi import roi_align
from models.postprocess import detections
from models.start import start_from
from models.target import Target
from tests.models.backbones.fill import picture, weights

pytestmark = pytest.mark.slow

PUBLISHED = json.loads(Path(__file__).with_name("torchvision_fasterrcnn.json").read_text())
SCALES = {"layer_blocks": 0.1, "cls_score": 0.7, "bbox_pred": 0.1}
"""The pattern's size in these layers, for which scores are far from 0 and 1 and boxes stay in the picture."""


def filled(name: str, like: Tensor) -> Tensor:
    scale = next((value for part, value in SCALES.items() if part in name), 1.0)
    return weights(name, like) * scale


def names(count: int) -> tuple[str, ...]:
    return tuple(f"class {index}" for index in range(count))


def test_tensors_are_torchvisions() -> None:
    with torch.device("meta"):
        model = FasterRcnnFpn(FasterRcnnFpnConfig(names(90)))
        deep = FasterRcnnFpn(FasterRcnnFpnConfig(names(90), backbone="resnet101"))
    mine = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert list(mine.items()) == list(PUBLISHED["shapes"].items())
    assert len(deep.state_dict()) == 550  # as torchvision's on ResNet-101


def test_outputs_are_torchvisions() -> None:
    config = FasterRcnnFpnConfig(names(3), input_height=64, input_width=96, proposals=60)
    with torch.device("meta"):
        model = FasterRcnnFpn(config)
    state = {name: filled(name, tensor) for name, tensor in model.state_dict().items()}
    model.load_state_dict(state, strict=True, assign=True)
    with torch.no_grad():
        boxes, scores = model.eval().decode(model.normalise(picture(64, 96)))
    found, certain, classes = detections(boxes[0], scores[0], 0.05, 0.5)
    assert len(found) == PUBLISHED["count"]
    first = len(PUBLISHED["scores"])
    box_difference = (found[:first] - torch.tensor(PUBLISHED["boxes"])).abs().max().item()
    score_difference = (certain[:first] - torch.tensor(PUBLISHED["scores"])).abs().max().item()
    print("largest difference", box_difference, "px, score", score_difference)
    assert box_difference < 5e-4  # of boxes up to 96 wide; float32 counts them by 8e-6
    assert score_difference < 1e-4
    assert classes[:first].tolist() == [label - 1 for label in PUBLISHED["labels"]]  # 0 is background there


def test_levels_by_hand() -> None:
    """A region of 224 belongs on stride 16, half of it a level finer; the ends take the rest."""
    sides = torch.tensor([10.0, 55, 56, 111, 112, 223, 224, 447, 448, 2000])
    boxes = torch.stack([torch.zeros(10), torch.zeros(10), sides, sides], 1)
    assert levels_of(boxes).tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]


def test_each_region_is_aligned_on_its_level() -> None:
    torch.manual_seed(0)
    maps = [torch.randn(2, 3, 64 >> level, 64 >> level) for level in range(4)]
    boxes = torch.tensor([[0.0, 0, 250, 250], [10, 10, 50, 60], [20, 30, 140, 160], [0, 0, 9, 250]])
    pictures = torch.tensor([0, 1, 1, 0])
    assert levels_of(boxes).tolist() == [2, 0, 1, 0]
    found = pyramid_roi_align(maps, boxes, pictures, 7)
    for row, level in enumerate([2, 0, 1, 0]):
        some = slice(row, row + 1)
        alone = roi_align(maps[level], boxes[some], pictures[some], 7, 1 / (4 << level), aligned=False)
        assert torch.equal(found[some], alone)


def small() -> FasterRcnnFpn:
    torch.manual_seed(0)
    return FasterRcnnFpn(
        FasterRcnnFpnConfig(("a", "b"), 64, 96, backbone="resnet18", proposals=30, regions=16, head_width=16)
    )


def test_one_batch_is_learned() -> None:
    model, none = small().train(), torch.zeros(0, 4)
    images = torch.randint(90, 110, (2, 64, 96, 3), dtype=torch.uint8)
    images[0, 10:50, 20:60], images[1, 20:60, 50:80] = 255, 0
    targets = [
        Target(torch.tensor([[20.0, 10, 60, 50]]), torch.tensor([0]), none, none, none),
        Target(torch.tensor([[50.0, 20, 80, 60]]), torch.tensor([1]), none, none, none),
    ]
    inputs = model.normalise(images)
    learning = [parameter for name, parameter in model.named_parameters() if ".body." not in name]
    optimiser = torch.optim.Adam(learning, 1e-3)
    seen = []
    for _ in range(15):
        loss = torch.stack(list(model.losses(inputs, targets).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(loss.item())
    print("loss", " ".join(f"{value:.2f}" for value in seen))
    assert seen[-1] < seen[0] / 2
    assert all(parameter.grad is not None for parameter in learning)


def test_the_names_of_the_files_that_torchvision_published_first(tmp_path: Path) -> None:
    """The convolutions of the pyramid and of the RPN were no blocks then."""
    model, other = small(), small()
    old = {
        re.sub(r"(_blocks\.\d)\.0\.|(rpn\.head\.conv)\.0\.0\.", r"\1\2.", name): value
        for name, value in model.state_dict().items()
    }
    assert {
        "backbone.fpn.inner_blocks.0.weight",
        "backbone.fpn.layer_blocks.3.bias",
        "rpn.head.conv.bias",
    } < set(old)
    torch.save(old, tmp_path / "old.pth")
    other.load_torchvision(tmp_path / "old.pth")
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_a_training_starts_from_what_torchvision_published_of_coco(tmp_path: Path) -> None:
    path, config = tmp_path / "coco.pth", replace(small().config, names=COCO_CATEGORIES[1:])
    theirs = FasterRcnnFpn(config).state_dict()
    torch.save(theirs, path)
    model = FasterRcnnFpn(replace(config, names=("helmet", "dog", "person")))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert start_from(model, str(path), []) == f"starting from {path}; anew: helmet"
    own, head = model.state_dict(), "roi_heads.box_predictor."
    for name in (f"{head}cls_score.weight", f"{head}cls_score.bias"):
        assert torch.equal(own[name][[0, 2, 3]], theirs[name][[0, 18, 1]]), "a dog is COCO's 18th category"
        assert torch.equal(own[name][1], before[name][1])
    assert torch.equal(own[f"{head}bbox_pred.bias"][8:12], theirs[f"{head}bbox_pred.bias"][72:76])
    for name in own:
        assert head in name or torch.equal(own[name], theirs[name]), name
    torch.save({"fc.weight": torch.zeros(2)}, path)
    with pytest.raises(DataError, match="is not a torchvision Faster R-CNN"):
        start_from(model, str(path), [])


def test_checkpoints_load_or_say_why_not(tmp_path: Path) -> None:
    path, model = tmp_path / "published.pth", small()
    torch.save({**model.state_dict(), "backbone.body.bn1.num_batches_tracked": torch.tensor(1)}, path)
    other = small()
    torch.nn.init.zeros_(other.rpn.head.cls_logits.weight)
    other.load_torchvision(path)
    assert torch.equal(other.rpn.head.cls_logits.weight, model.rpn.head.cls_logits.weight)
    torch.save({"fc.weight": torch.zeros(2, 2)}, path)
    for wrong in (path, tmp_path / "missing.pth", Path(__file__)):
        with pytest.raises(
            DataError, match="is not a torchvision Faster R-CNN of resnet18 with a pyramid and 2"
        ):
            other.load_torchvision(wrong)
