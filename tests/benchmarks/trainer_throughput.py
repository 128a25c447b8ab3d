"""What a training costs beyond its model: pictures a second of the trainer, over those of a plain loop.

    python -m tests.benchmarks.trainer_throughput configs/train/lookout-nano.yaml [--batch 8] [--steps 20] [--rounds 3]

The plain loop has one batch in memory and does what PyTorch's tutorials do: forward, loss, backward, AdamW. The
trainer reads pictures, augments them in its workers, clips gradients and averages weights besides. First come the
rounds of the plain loop, then those of the trainer, which changes how its process keeps memory: on the same network,
without the teacher of a distillation, which a plain loop has not. The ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import torch

from models.loader import Batch, epoch_batches
from models.machine import keep_freed_memory
from models.recipe import load_recipe
from models.target import moved
from models.train import _samples
from models.trainer import Trainer, build, network, step
from models.training_data import training_data

_AHEAD = 6
"""Steps before the clock runs."""


def plain_loop(trainer: Trainer, batch: Batch, steps: int) -> None:
    optimiser = torch.optim.AdamW(trainer.model.parameters(), lr=1e-5)
    images = trainer.model.normalise(batch.images.to(trainer.device))
    images = images.contiguous(memory_format=torch.channels_last)
    targets = moved(batch.targets, trainer.device)
    mixed = trainer.precision != torch.float32
    for _ in range(steps):
        with torch.autocast(trainer.device.type, trainer.precision, enabled=mixed):
            loss = torch.stack(list(trainer.model.losses(images, targets).values())).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    loss.item()  # a GPU has to finish


def trained(trainer: Trainer, batches: Iterator[Batch], steps: int) -> float:
    """Do the trainer's steps; returns the seconds it waited for data."""
    waited = 0.0
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        step(trainer, [batch], 1e-3)
    return waited


def run(recipe_path: Path, batch_size: int | None, steps: int, rounds: int) -> dict[str, float | str | int]:
    recipe = load_recipe(recipe_path).model_copy(update={"distillation": None})
    if batch_size is not None:
        recipe = recipe.model_copy(
            update={"schedule": recipe.schedule.model_copy(update={"batch": batch_size})}
        )
    examples, _ = training_data(recipe)
    trainer = build(recipe, network(recipe))
    trainer.model.train()
    size = recipe.schedule.batch
    plain_s, own_s, waited_s = [], [], []
    on_cpu = trainer.device.type == "cpu"
    with closing(epoch_batches(_samples(recipe, examples, 0), size, 0)) as batches:
        batch = next(batches)
    plain_loop(trainer, batch, 2)
    for _ in range(rounds):
        started = time.perf_counter()
        plain_loop(trainer, batch, steps)
        plain_s.append(time.perf_counter() - started)
    keep_freed_memory()
    for number in range(rounds):
        samples = _samples(recipe, examples, number, recolour=on_cpu)
        with closing(epoch_batches(samples, size, recipe.workers)) as batches:
            trained(trainer, batches, _AHEAD)  # what was prepared ahead is no gain
            started = time.perf_counter()
            waited_s.append(trained(trainer, batches, steps))
            own_s.append(time.perf_counter() - started)
    return {
        "device": trainer.device.type,
        "batch": size,
        "workers": recipe.workers,
        "plain_pictures_s": round(steps * size / statistics.median(plain_s), 2),
        "trainer_pictures_s": round(steps * size / statistics.median(own_s), 2),
        "ratio": round(statistics.median(plain_s) / statistics.median(own_s), 3),
        "waiting_for_data": round(sum(waited_s) / sum(own_s), 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--batch", type=int, help="pictures a step (default: the recipe's)")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(json.dumps(run(given.recipe, given.batch, given.steps, given.rounds), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
