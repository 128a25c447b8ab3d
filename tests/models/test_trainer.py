"""One step of a training, and what surrounds it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.augment import Augmentation
from models.coco import load_coco
from models.ema import MovingAverage
from models.loader import Batch, EpochSamples, epoch_batches
from models.recipe import Recipe
from models.recolour import recoloured
from models.trainer import Trainer, TrainingDiverged, build, network, rate_at, step
from tests.models.conftest import SHAPES


def _trainer(rate: float = 0.001) -> Trainer:
    recipe = Recipe.model_validate(
        {
            "name": "steps",
            "names": SHAPES,
            "data": {"train": [{"annotations": "unused.json", "images": "unused"}]},
            "model": {
                "input_height": 96,
                "input_width": 128,
                "backbone_blocks": 12,
                "width": 16,
                "pretrained": False,
            },
            "schedule": {"epochs": 2, "learning_rate": rate},
            "device": "cpu",
            "precision": "float32",
        }
    )
    return build(recipe, network(recipe))


def _batch(shapes: Path) -> Batch:
    examples = load_coco(shapes, shapes.parent, SHAPES)
    return next(epoch_batches(EpochSamples(examples, 96, 128, Augmentation(), (1.0, 1.0), 0, 0), 2, 0))


def test_without_frozen_blocks_everything_is_trained() -> None:
    assert all(parameter.requires_grad for parameter in _trainer().model.parameters())


def test_a_gradient_that_is_no_number_never_reaches_the_weights(shapes: Path) -> None:
    trainer = _trainer()
    next(trainer.model.parameters()).register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(TrainingDiverged, match=r"gradient became nan in epoch 1; lower .* same command"):
        step(trainer, [_batch(shapes)], 1.0)
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())
    assert all(parameter.isfinite().all() for parameter in trainer.average.model.parameters())


def test_batches_of_a_step_add_up_to_one_of_all_their_pictures(shapes: Path) -> None:
    """Of a network without batch norm in training: its statistics are a batch's own."""
    whole, parts = _trainer(), _trainer()
    batch = _batch(shapes)
    for trainer in (whole, parts):
        trainer.model.eval()
        trainer.optimiser = torch.optim.SGD(trainer.model.parameters(), lr=0.0)  # type: ignore[assignment]
        trainer.optimiser.param_groups[0]["highest"] = 0.01
    halves = [Batch(batch.images[n : n + 1], batch.targets[n : n + 1]) for n in range(2)]
    together = step(whole, [batch, batch], 1.0)
    apart = step(parts, [batch], 1.0)
    assert together == pytest.approx(apart, rel=1e-5), "the same batch twice is that batch"
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    one_by_one = [step(_evaluating(), [half], 0.0) for half in halves]
    both = step(_evaluating(), halves, 0.0)
    assert both == pytest.approx(
        {name: sum(each[name] for each in one_by_one) / 2 for name in both}, rel=1e-5
    )


def _evaluating() -> Trainer:
    trainer = _trainer()
    trainer.model.eval()
    return trainer


def test_colours_left_to_the_training_are_changed_before_it_looks(shapes: Path) -> None:
    """In every part of a batch by its own pictures' colours."""
    batch = _batch(shapes)
    colours = torch.tensor([[0.3, 0.5, 0.4], [0.0, 1.0, 1.0]])
    for parts in (1, 2):
        made, plain, untouched = _trainer(), _trainer(), _trainer()
        made.parts = plain.parts = untouched.parts = parts
        done = step(made, [replace(batch, colours=colours)], 0.0)
        ready = replace(batch, images=recoloured(batch.images, colours))
        assert done == step(plain, [ready], 0.0)
        assert done != step(untouched, [batch], 0.0)


def test_too_little_memory_cuts_batches_in_half_and_the_step_stays_one(shapes: Path) -> None:
    """Memory for two pictures, of four; by the error that CUDA raises."""
    examples = load_coco(shapes, shapes.parent, SHAPES)
    batch = next(epoch_batches(EpochSamples(examples, 96, 128, Augmentation(), (1.0, 1.0), 0, 0), 4, 0))
    plain, small = _evaluating(), _evaluating()
    sizes: list[int] = []

    def fits(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        sizes.append(len(given[0]))
        if len(given[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    small.model.backbone.stem.register_forward_pre_hook(fits)
    assert step(small, [batch], 0.0) == pytest.approx(step(plain, [batch], 0.0), rel=0.5)
    step(small, [batch], 0.0)
    assert (sizes, small.parts) == ([4, 2, 2, 2, 2], 2)
    assert all(parameter.grad is not None for parameter in small.model.parameters())
    again = _trainer()
    again.restore({"training": small.state(), "weights": small.average.model.state_dict(), "epoch": 1})
    assert again.parts == 2

    def never_fits(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    small.model.backbone.stem.register_forward_pre_hook(never_fits)
    with pytest.raises(torch.OutOfMemoryError):
        step(small, [batch], 0.0)


def test_float16_skips_a_step_that_overflows(shapes: Path) -> None:
    """With a loss scale there is a remedy, until the scale is down to one."""
    trainer, batch = _trainer(), _batch(shapes)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    next(trainer.model.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    step(trainer, [batch], 1.0)
    step(trainer, [batch], 1.0)
    assert trainer.scaler.get_scale() == 1
    with pytest.raises(TrainingDiverged):
        step(trainer, [batch], 1.0)
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


def test_a_resumed_training_takes_the_recipes_rate_and_needs_no_scaler_state() -> None:
    before, now = _trainer(rate=0.004), _trainer(rate=0.001)
    content = {"training": before.state(), "weights": before.average.model.state_dict(), "epoch": 1}
    assert content["training"]["scaler"] == {}
    now.scaler = torch.amp.GradScaler("cpu")  # as where the GPU computes in float16
    now.restore(content)
    assert max(group["highest"] for group in now.optimiser.param_groups) == 0.001
    assert now.epoch == 1


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    assert rate_at(0.05, 0.1) == pytest.approx(0.5)
    assert rate_at(0.1, 0.1) == pytest.approx(1)
    assert rate_at(0.55, 0.1) == pytest.approx((1 + 0.01) / 2)
    assert rate_at(1, 0.1) == pytest.approx(0.01)
    assert rate_at(0, 0) == pytest.approx(1)


def test_the_average_follows_the_weights() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 0.0)
    average = MovingAverage(model, decay=0.5)
    torch.nn.init.constant_(model.weight, 1.0)
    before = 0.0
    for _ in range(20):
        average.update(model)
        assert before < average.model.weight.item() <= 1
        before = average.model.weight.item()
    assert before > 0.99
    assert model.weight.item() == 1
