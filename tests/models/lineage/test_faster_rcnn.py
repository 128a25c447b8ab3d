"""Faster R-CNN learns one batch by heart, from the packaged ImageNet weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.boxes import pairwise_iou
from models.lineage.faster_rcnn import FasterRcnn, FasterRcnnConfig
from models.postprocess import detections
from models.target import Target

CONFIG = FasterRcnnConfig(
    names=("square",),
    input_height=96,
    input_width=128,
    anchor_sizes=(32,),
    rpn_width=64,
    proposals=20,
    regions=16,
)
BOXES = torch.tensor([[[20.0, 30, 60, 70]], [[70.0, 16, 102, 80]]])


def batch() -> tuple[torch.Tensor, list[Target]]:
    """Two pictures of noise with a bright rectangle each."""
    torch.manual_seed(0)
    images = torch.randint(90, 110, (2, 96, 128, 3), dtype=torch.uint8)
    for image, (left, top, right, bottom) in zip(images, BOXES[:, 0].int().tolist(), strict=True):
        image[top:bottom, left:right] = 255
    none, first = torch.zeros(0, 4), torch.zeros(1, dtype=torch.int64)
    return images, [Target(boxes, first, none, none, none) for boxes in BOXES]


@pytest.mark.slow
def test_one_batch_is_learned() -> None:
    images, targets = batch()
    model = FasterRcnn(CONFIG)
    model.start_from_imagenet()
    for layer in model.early(8):
        layer.requires_grad_(False)
    inputs = model.normalise(images)
    optimiser = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], 1e-3)
    seen = []
    for step in range(30):
        optimiser.param_groups[0]["lr"] = 1e-3 * (1 - step / 30)
        losses = model.train().losses(inputs, targets)
        assert set(losses) == {"objectness", "proposal", "class", "box"}
        loss = torch.stack(list(losses.values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(loss.item())
    print("loss", " ".join(f"{value:.2f}" for value in seen))
    assert seen[-1] < seen[0] / 5
    with torch.no_grad():
        boxes, scores = model.eval().decode(inputs)
    assert boxes.shape == (2, 20, 4)
    for its_boxes, its_scores, target in zip(boxes, scores, targets, strict=True):
        found, certain, _ = detections(its_boxes, its_scores, 0.5)
        overlaps = pairwise_iou(found, target.boxes)[:, 0]
        print("score", certain.tolist(), "IoU", overlaps.tolist())
        assert overlaps.max() > 0.7
        assert overlaps.min() > 0.5


def test_alternating_lowers_two_losses_at_a_time() -> None:
    images, targets = batch()
    model = FasterRcnn(replace(CONFIG, training="alternating")).train()
    inputs = model.normalise(images)
    assert set(model.losses(inputs, targets)) == {"objectness", "proposal"}
    assert set(model.losses(inputs, targets)) == {"class", "box"}
    assert set(model.losses(inputs, targets)) == {"objectness", "proposal"}


def test_pictures_without_objects_have_losses() -> None:
    images, targets = batch()
    none = torch.zeros(0, 4)
    empty = Target(none, torch.zeros(0, dtype=torch.int64), none, none, none)
    model = FasterRcnn(CONFIG).train()
    losses = model.losses(model.normalise(images), [empty, targets[1]])
    assert all(loss.isfinite() for loss in losses.values())
    losses = model.losses(model.normalise(images), [empty, empty])
    assert losses["proposal"].item() == 0
    assert losses["box"].item() == 0


def test_batch_norm_keeps_its_statistics() -> None:
    model = FasterRcnn(CONFIG).train()
    before = model.backbone.stem[1].running_mean.clone()
    images, targets = batch()
    model.losses(model.normalise(images), targets)
    assert torch.equal(model.backbone.stem[1].running_mean, before)
    assert FasterRcnn(replace(CONFIG, frozen_norm=False)).train().backbone.stem[1].training
