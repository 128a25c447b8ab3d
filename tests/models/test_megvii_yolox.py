"""YOLOX against Megvii's own code and weights, without it.

``megvii_facts.json`` was written by running the classes of ``yolox`` 0.3.0 with the weights of ``filled`` and the
64x96 picture of ``fill``, as BGR: of every 25th cell the first seven numbers, those from the fifth on after their
sigmoid. The digest is of the sorted lines "name shape" of its state dict.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from export.families.yolox_grid import decode
from models.boxes import pairwise_iou
from models.coco import load_coco
from models.coco_names import COCO_NAMES
from models.letterbox import Letterbox
from models.megvii_yolox import SIZES, MegviiYolox, MegviiYoloxConfig, SizeName
from models.start import restore_statistics
from models.target import Target
from tests.models.backbones.fill import picture, weights
from tests.models.published_yolox import nano_from_onnx

FACTS: dict[SizeName, Any] = json.loads(Path(__file__).with_name("megvii_facts.json").read_text())
MILLIONS = {"nano": 0.91, "tiny": 5.06, "s": 8.97, "m": 25.33, "l": 54.21, "x": 99.07}
"""Parameters, as Megvii publishes them (of x, they say 99.1)."""
LARGE = [pytest.param(size, marks=pytest.mark.slow) if SIZES[size].width > 24 else size for size in SIZES]


def empty(size: SizeName) -> MegviiYolox:
    """Without memory for weights."""
    with torch.device("meta"):
        return MegviiYolox(MegviiYoloxConfig(COCO_NAMES, 64, 96, size))


def filled(name: str, like: Tensor) -> Tensor:
    """The pattern, at a strength at which a deep network's numbers stay near 1."""
    if name.endswith("stem.conv.conv.weight"):
        return weights(name, like) / 128  # of pixels to 255
    return weights(name, like) * (0.6 if ".m." in name and name.endswith("bn.weight") else 1.0)


def with_scores(raw: Tensor) -> Tensor:
    """As Megvii's ONNX files have it: objectness and classes after their sigmoid."""
    return torch.cat([raw[..., :4], raw[..., 4:].sigmoid()], -1)


@pytest.mark.parametrize("size", SIZES)
def test_tensors_have_megviis_names_and_shapes(size: SizeName) -> None:
    model, facts = empty(size), FACTS[size]
    state = model.state_dict()
    count = sum(parameter.numel() for parameter in model.parameters())
    lines = "\n".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(state.items()))
    assert round(count / 1e6, 2) == MILLIONS[size]
    assert (count, len(state)) == (facts["parameters"], facts["tensors"])
    assert hashlib.sha256(lines.encode()).hexdigest() == facts["sha256"]


@pytest.mark.parametrize("size", LARGE)
@torch.no_grad()
def test_the_same_weights_give_megviis_outputs(size: SizeName) -> None:
    model = empty(size).eval()
    state = {name: filled(name, tensor) for name, tensor in model.state_dict().items()}
    model.load_state_dict(state, strict=True, assign=True)
    found = with_scores(model(model.normalise(picture(64, 96))))
    assert found.shape == (1, 8 * 12 + 4 * 6 + 2 * 3, 85)
    expected = torch.tensor(FACTS[size]["rows"])
    difference = (found[0, ::25, :7] - expected).abs()
    print(f"max {difference.max():.2e} mean {difference.mean():.2e} of numbers to {expected.abs().max():.2f}")
    assert difference.max() <= 5e-5


@torch.no_grad()
def test_published_nano_gives_what_its_onnx_file_gives(yolox_nano: Path, shared: Path) -> None:
    """On a real picture: the raw numbers, and the boxes that a decoder written apart from ours makes of the file's."""
    folder = shared / "data" / "coco-mini"
    example = load_coco(folder / "instances_val.json", folder / "images", ("person",))[0]
    image = Letterbox.fit(example.width, example.height, 416, 416).apply(example.read())
    model = nano_from_onnx(yolox_nano)
    inputs = model.normalise(torch.from_numpy(image)[None])
    blue_first = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)[None], np.float32)
    assert np.array_equal(inputs.numpy(), blue_first)
    session = onnxruntime.InferenceSession(str(yolox_nano), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {session.get_inputs()[0].name: blue_first})
    difference = np.abs(with_scores(model(inputs)).numpy() - expected)
    raw, scores = difference[..., :4], difference[..., 4:]
    print(
        f"raw max {raw.max():.2e} mean {raw.mean():.2e}, scores max {scores.max():.2e} mean {scores.mean():.2e}"
    )
    assert expected.shape == (1, 3549, 85)
    assert raw.max() <= 5e-4  # in cells, and logarithms of cells, to 3
    assert scores.max() <= 1e-4
    decoded, class_scores = model.decode(inputs)
    reference = decode(expected[0], 416, 416)
    certain = reference.class_scores.max(1) > 0.1
    apart = np.abs(decoded[0].numpy() - reference.boxes)[certain]
    print(f"{certain.sum()} boxes, max {apart.max():.2e} px")
    assert certain.sum() > 10
    assert apart.max() <= 0.02
    assert np.abs(class_scores[0].numpy() - reference.class_scores).max() <= 1e-4


@pytest.mark.slow
def test_published_weights_train_on_from_where_they_are(yolox_nano: Path, shared: Path) -> None:
    """On real pictures, in training mode: what they learned there is what our assignment and losses want."""
    folder, none = shared / "data" / "coco-mini", torch.zeros(0, 4)
    examples = load_coco(folder / "instances_train.json", folder / "images", COCO_NAMES)[:4]
    places = [Letterbox.fit(example.width, example.height, 416, 416) for example in examples]
    given = [place.apply(example.read()) for place, example in zip(places, examples, strict=True)]
    targets = [
        Target(
            torch.from_numpy(place.to_input(example.boxes)).float(),
            torch.from_numpy(example.classes),
            torch.from_numpy(place.to_input(example.crowds)).float(),
            none,
            none,
        )
        for place, example in zip(places, examples, strict=True)
    ]
    model = nano_from_onnx(yolox_nano)
    images = model.normalise(torch.from_numpy(np.stack(given)))
    restore_statistics(model, examples)
    new = MegviiYolox(model.config)
    with torch.no_grad():
        losses, untrained = model.train().losses(images, targets), new.train().losses(images, targets)
    print({name: f"{loss:.2f}, untrained {untrained[name]:.2f}" for name, loss in losses.items()})
    assert sum(losses.values()) < sum(untrained.values()) / 4


def batch() -> tuple[Tensor, list[Target]]:
    """A white and a black square on grey, uint8 (2, 64, 96, 3), of different classes."""
    none = torch.zeros(0, 4)
    torch.manual_seed(0)
    images = torch.randint(90, 110, (2, 64, 96, 3), dtype=torch.uint8)
    images[0, 10:50, 20:60], images[1, 20:60, 50:80] = 255, 0
    boxes = torch.tensor([[20.0, 10, 60, 50]]), torch.tensor([[50.0, 20, 80, 60]])
    return images, [Target(box, torch.tensor([number]), none, none, none) for number, box in enumerate(boxes)]


def test_everything_learns() -> None:
    model = MegviiYolox(MegviiYoloxConfig(("a", "b"), 64, 96, "nano")).train()
    images, targets = batch()
    torch.stack(list(model.losses(model.normalise(images), targets).values())).sum().backward()
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        assert gradient is not None, name
        assert gradient.isfinite().all(), name
        assert gradient.any() or name.startswith("head."), name  # not every stride has an object here


@pytest.mark.slow
def test_one_batch_is_learned() -> None:
    images, targets = batch()
    model = MegviiYolox(MegviiYoloxConfig(("a", "b"), 64, 96, "nano")).train()
    inputs = model.normalise(images)
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    seen = []
    for _ in range(80):
        loss = torch.stack(list(model.losses(inputs, targets).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(loss.item())
    print("loss", " ".join(f"{value:.2f}" for value in seen))
    assert seen[-1] < seen[0] / 4
    with torch.no_grad():
        boxes, scores = model.decode(inputs)  # by the batch's own statistics: the running ones come later
    for number, target in enumerate(targets):
        best = int(scores[number].max(1).values.argmax())
        assert int(scores[number, best].argmax()) == number
        assert pairwise_iou(boxes[number, best : best + 1], target.boxes).item() > 0.7


def test_what_a_recipe_freezes() -> None:
    model = empty("nano")
    darknet = model.backbone.backbone
    assert list(model.early(0)) == []
    assert list(model.early(2)) == [darknet.stem, darknet.dark2, darknet.dark3]
    assert len(list(model.early(12))) == 5
