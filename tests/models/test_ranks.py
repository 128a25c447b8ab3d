"""Two processes that torchrun starts train as one does that cuts its batches in half."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.errors import RecipeError
from models.loader import epoch_batches, steps_per_epoch
from models.ranks import Ranks
from models.recipe import load_recipe
from models.train import _check_ranks, _samples
from models.trainer import build, network, rate_at, step
from models.training_data import training_data

ROOT = Path(__file__).resolve().parents[2]


def _recipe(folder: Path, shapes: Path, batch: int = 4) -> Path:
    path = folder / "ranks.yaml"
    path.write_text(f"""
name: ranks
names: [square, disc]
model: {{input_height: 64, input_width: 96, backbone_blocks: 12, width: 16}}
data: {{train: [{{annotations: {shapes}, images: {shapes.parent}}}]}}
augmentation: {{mosaic: 0}}
schedule: {{epochs: 2, batch: {batch}, learning_rate: 0.001}}
device: cpu
precision: float32
workers: 0
threads: 1
runs: {folder / "runs"}
""")
    return path


@pytest.mark.slow
def test_two_processes_are_one_that_cuts_its_batches_in_half(tmp_path: Path, shapes: Path) -> None:
    path = _recipe(tmp_path, shapes)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "stream.cli"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "train", str(path)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 2/2") == 1, "one of them speaks"
    recipe = load_recipe(path)
    trainer = build(recipe, network(recipe))
    trainer.parts = 2
    trainer.model.train()
    examples, _ = training_data(recipe)
    steps = steps_per_epoch(len(examples), recipe.schedule.batch)
    for epoch in range(2):
        for index, batch in enumerate(epoch_batches(_samples(recipe, examples, epoch), 4, 0)):
            done_share = (epoch + (index + 1) / steps) / 2
            step(trainer, [batch], rate_at(done_share, recipe.schedule.warmup_epochs / 2))
    kept = torch.load(recipe.folder / "last.pt", weights_only=True)["training"]["model"]
    start = network(recipe).state_dict()
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(kept[name], parameter.detach(), atol=2e-4, rtol=1e-3, msg=name)
    moved = max((kept[name] - start[name]).abs().max().item() for name, _ in trainer.model.named_parameters())
    assert moved > 1e-3


def test_parts_of_a_batch_are_the_batch(tmp_path: Path, shapes: Path) -> None:
    recipe = load_recipe(_recipe(tmp_path, shapes))
    examples, _ = training_data(recipe)
    whole = epoch_batches(_samples(recipe, examples, 0), 4, 0)
    halves = [epoch_batches(_samples(recipe, examples, 0), 4, 0, Ranks(index, 2)) for index in (0, 1)]
    count = 0
    for batch, first, second in zip(whole, *halves, strict=True):
        assert torch.equal(batch.images, torch.cat([first.images, second.images]))
        count += 1
    assert count == 2


def test_a_batch_without_equal_parts_is_refused(tmp_path: Path, shapes: Path) -> None:
    recipe = load_recipe(_recipe(tmp_path, shapes, batch=5))
    _check_ranks(recipe, Ranks())
    with pytest.raises(RecipeError, match=r"schedule\.batch: is 5, of which 2 processes have no equal parts"):
        _check_ranks(recipe, Ranks(1, 2))
