from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.lineage.dense import as_convolutions, fully_connected, shifted
from models.lineage.overfeat import BOX_WEIGHT, Overfeat, OverfeatConfig
from models.postprocess import detections
from models.target import Target

NONE = torch.zeros(0, 4)


def _paper_like(**changes: object) -> OverfeatConfig:
    """The fast network, with few channels."""
    values: dict[str, object] = {
        "names": ("a", "b"),
        "input_height": 256,
        "input_width": 320,
        "backbone": "overfeat_fast",
        "backbone_width": 1 / 16,
        "scales": (1.0, 1.2),
        "window_height": 3,
        "window_width": 3,
        "hidden": 24,
    }
    return OverfeatConfig(**{**values, **changes})  # type: ignore[arg-type]


def _with_linear_heads(model: Overfeat) -> tuple[nn.Sequential, nn.Sequential]:
    """Give the model heads that were linear; returns them as they were."""
    config = model.config
    inputs = model.backbone.trunk_channels * config.window_height * config.window_width
    heads = [fully_connected(inputs, (24, 24), outputs).eval() for outputs in (len(config.names) + 1, 4)]
    for head in heads:  # as large as a trained one's: an untrained network gives next to nothing
        first = head[1]
        assert isinstance(first, nn.Linear)
        first.weight.data *= 100
    spread = config.pool if config.offsets else 1
    shape = (config.window_height, config.window_width, spread)
    model.classifier, model.regressor = (as_convolutions(head, *shape) for head in heads)
    return heads[0], heads[1]


@torch.no_grad()
@pytest.mark.parametrize("offsets", [True, False])
def test_dense_evaluation_equals_cropping_the_pixels_of_every_window(offsets: bool) -> None:
    torch.manual_seed(0)
    model = Overfeat(_paper_like(offsets=offsets)).eval()
    heads = _with_linear_heads(model)
    images = model.normalise(torch.randint(0, 256, (2, 256, 320, 3), dtype=torch.uint8))
    logits, edges = model(images)
    row = 0
    worst = 0.0
    for level in model.levels:
        scaled = model._scaled(images, level)
        to_level = torch.tensor([level.width / 320, level.height / 256]).repeat(2)
        for window in (level.windows * to_level).round().int().tolist():
            left, top, right, bottom = window
            assert (right - left, bottom - top) == (231, 231), "the paper's input"
            cells = model.backbone.trunk(scaled[:, :, top:bottom, left:right])
            assert cells.shape[2:] == (6, 6)
            pooled = functional.max_pool2d(cells, 2)
            for dense, head in zip((logits, edges), heads, strict=True):
                worst = max(worst, (dense[:, row] - head(pooled)).abs().max().item())
            row += 1
    print(
        f"{row} windows, offsets {offsets}: largest difference {worst:.2e}, spread {logits.std(1).min():.2f}"
    )
    assert row == logits.shape[1] == len(model.windows)
    assert row > (20 if offsets else 6)
    assert min(logits.std(1).min(), edges.std(1).min()) > 0.05, "all windows give the same"
    assert worst <= 1e-4


@torch.no_grad()
def test_with_a_padded_backbone_a_window_is_a_crop_of_the_map() -> None:
    torch.manual_seed(0)
    config = OverfeatConfig(("a",), 96, 128, scales=(1.0,), window_height=2, window_width=1)
    model = Overfeat(config).eval()
    model.start_from_imagenet()
    heads = _with_linear_heads(model)
    images = model.normalise(torch.randint(0, 256, (1, 96, 128, 3), dtype=torch.uint8))
    maps = model.backbone.trunk(images)
    logits, edges = model(images)
    worst = 0.0
    for row, (left, top, right, bottom) in enumerate(model.windows.int().tolist()):
        cells = maps[:, :, top // 16 : bottom // 16, left // 16 : right // 16]
        pooled = functional.max_pool2d(cells, 2)
        for dense, head in zip((logits, edges), heads, strict=True):
            worst = max(worst, (dense[:, row] - head(pooled)).abs().max().item())
    print(f"{len(model.windows)} windows: largest difference {worst:.2e}, spread {logits.std(1).min():.2f}")
    assert len(model.windows) == 3 * 7
    assert min(logits.std(1).min(), edges.std(1).min()) > 0.05
    assert worst <= 1e-4


@torch.no_grad()
def test_the_papers_shifted_pooling_gives_the_detectors_windows() -> None:
    torch.manual_seed(0)
    model = Overfeat(_paper_like(scales=(1.2,))).eval()
    classifier, _ = _with_linear_heads(model)
    images = model.normalise(torch.randint(0, 256, (1, 256, 320, 3), dtype=torch.uint8))
    maps = model.backbone.trunk(model._scaled(images, model.levels[0]))
    papers = shifted(maps, as_convolutions(classifier, 3, 3), 2).flatten(2).transpose(1, 2)
    difference = (model(images)[0] - papers).abs()
    print(f"max {difference.max():.2e} mean {difference.mean():.2e}")
    assert difference.max() <= 1e-5


def test_offsets_make_the_stride_finer() -> None:
    fine, coarse = Overfeat(_paper_like()).levels[0], Overfeat(_paper_like(offsets=False)).levels[0]
    assert fine.windows[1].tolist() == [16, 0, 247, 231]
    assert coarse.windows[1].tolist() == [32, 0, 263, 231]
    assert {tuple(window) for window in coarse.windows.tolist()} < {
        tuple(window) for window in fine.windows.tolist()
    }


def test_a_picture_smaller_than_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scales: at 0\.5 the picture has 160x128 .* window 231x231; leave"):
        Overfeat(_paper_like(scales=(1.0, 0.5)))


def _says(model: Overfeat, logits: list[float], edges: list[float]) -> None:
    """Let both heads say the same of every window."""
    for head, bias in ((model.classifier, logits), (model.regressor, edges)):
        last = head[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        last.bias.data.copy_(torch.tensor(bias))


def _one_level() -> Overfeat:
    """Windows of 64x32 on 96x128 pixels: 3 rows of 7."""
    return Overfeat(OverfeatConfig(("a", "b"), 96, 128, scales=(1.0,), hidden=8))


@torch.no_grad()
def test_losses_by_hand() -> None:
    model = _one_level().eval()
    _says(model, [1.0, 2.0, 0.0], [0.25, 0.25, 0.75, 0.75])
    # 51.2 pixels high, so its ideal window is 64 high and 32 wide: the one at (48, 16)
    box = torch.tensor([[58.0, 22.4, 70, 73.6]])
    targets = [
        Target(box, torch.tensor([1]), NONE, NONE, NONE),
        Target(NONE, torch.zeros(0).long(), NONE, NONE, NONE),
    ]
    found = model.losses(torch.zeros(2, 3, 96, 128), targets)
    # the windows above and below it: 48 of 64 rows shared, IoU 0.6. Those beside it (0.33) are neither right
    # nor wrong, the other 16 background (at most 768 / 3328 = 0.23), as are 16 of the empty picture
    total = math.exp(1) + math.exp(2) + math.exp(0)
    log_b, log_background = 2 - math.log(total), 0 - math.log(total)
    assert found["class"].item() == pytest.approx(-(3 * log_b + (16 + 16) * log_background) / 35, rel=1e-5)
    squares = 0.0
    for top in (0, 16, 32):
        wanted = (58 - 48) / 32, (22.4 - top) / 64, (70 - 48) / 32, (73.6 - top) / 64
        squares += sum(
            (edge - said) ** 2 for edge, said in zip(wanted, (0.25, 0.25, 0.75, 0.75), strict=True)
        )
    assert found["box"].item() == pytest.approx(BOX_WEIGHT * squares / 2 / 3, rel=1e-5)


@torch.no_grad()
def test_decoding_by_hand() -> None:
    model = _one_level().eval()
    _says(model, [math.log(3.0), math.log(6.0), 0.0], [0.25, -0.5, 2.0, 0.5])
    boxes, scores = model.decode(torch.zeros(2, 3, 96, 128))
    assert boxes.shape == (2, 21, 4)
    assert scores[0, 0].tolist() == pytest.approx([0.3, 0.6])
    # the window (48, 16, 80, 80): 16 + (-0.5) * 64 is above the picture, the right edge inside
    assert boxes[1, 7 + 3].tolist() == pytest.approx([56, 0, 112, 48])
    assert boxes[1, 6].tolist() == pytest.approx([104, 0, 128, 32]), "the right edge is the picture's"


def _square(left: int, top: int, width: int, height: int) -> Tensor:
    image = torch.full((96, 128, 3), 100, dtype=torch.uint8)
    image[top : top + height, left : left + width] = torch.tensor([250, 40, 40], dtype=torch.uint8)
    return image


def test_it_learns_one_batch_by_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Overfeat(OverfeatConfig(("a",), 96, 128, scales=(1.0,), hidden=32))
    model.start_from_imagenet()
    model.eval()  # batch norm and dropout stay out of it
    places = [(20, 30, 20, 50), (84, 16, 20, 52)]
    images = model.normalise(torch.stack([_square(*place) for place in places]))
    boxes = [torch.tensor([[x, y, x + w, y + h]], dtype=torch.float32) for x, y, w, h in places]
    targets = [Target(box, torch.tensor([0]), NONE, NONE, NONE) for box in boxes]
    torch.stack(list(model.losses(images, targets).values())).sum().backward()
    stem = next(model.backbone.parameters())
    assert stem.grad is not None
    assert stem.grad.abs().max() > 0, "the backbone learns, too"
    maps = model.backbone.trunk(images).detach()
    monkeypatch.setattr(model.backbone, "trunk", lambda _: maps)  # quicker, and enough here
    optimiser = torch.optim.Adam([*model.classifier.parameters(), *model.regressor.parameters()], lr=0.003)
    totals = []
    for _ in range(120):
        loss = torch.stack(list(model.losses(images, targets).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        totals.append(loss.item())
    print(f"loss {totals[0]:.3f} -> {totals[-1]:.3f}")
    assert totals[-1] < totals[0] / 20
    monkeypatch.undo()
    with torch.no_grad():
        found, scores = model.decode(images)
    for picture, box in enumerate(boxes):
        best, its_scores, _ = detections(found[picture], scores[picture], 0.5)
        apart = (best[0] - box[0]).abs().max().item()
        print(f"score {its_scores[0]:.2f}, edges within {apart:.1f} px")
        assert apart < 4
