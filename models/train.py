"""Training from a recipe: AdamW, warm-up and cosine, mixed precision, averaged weights, checkpoints.

After every epoch ``last.pt`` is replaced; a killed training continues from it as if it had not been
killed. ``best.pt`` holds the averaged weights with the best validation. Knows nothing of ONNX.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from models.augment import Augmentation
from models.backbone import load_imagenet_weights
from models.checkpoint import read_checkpoint, save_checkpoint
from models.coco import Example, load_coco
from models.ema import MovingAverage
from models.errors import LookoutError, RecipeError
from models.evaluate import Metrics
from models.loader import Batch, EpochSamples, epoch_batches, steps_per_epoch
from models.losses import detection_loss
from models.recipe import Recipe, load_recipe
from models.validate import validate
from models.yolox import Yolox, YoloxConfig, grid

_FINAL_RATE = 0.01
"""The learning rate at the end, as a part of the highest."""

_FREE_KEYS = ("device", "precision", "workers", "threads", "runs")
"""What may change between a training and its continuation."""


class TrainingDiverged(LookoutError):
    """The loss is no longer a number."""


@dataclass(slots=True)
class Trainer:
    """Everything that changes during a training."""

    recipe: Recipe
    device: torch.device
    model: Yolox
    average: MovingAverage[Yolox]
    optimiser: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    precision: torch.dtype
    epoch: int = 0
    """Finished epochs."""
    best_ap50: float = -1.0

    def state(self) -> dict[str, Any]:
        """What a resumed training needs besides the averaged weights."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "updates": self.average.updates,
            "best_ap50": self.best_ap50,
            "random": torch.get_rng_state(),
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Continue from the content of a ``last.pt``."""
        state = content["training"]
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(content["weights"])
        self.average.updates = state["updates"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.best_ap50 = state["best_ap50"]
        self.epoch = content["epoch"]
        torch.set_rng_state(state["random"])


def train(recipe_path: Path, resume: bool = True) -> Path:
    """Train a detector; returns the path of its best checkpoint.

    Args:
        recipe_path: YAML, see ``configs/train/``.
        resume: continue from ``last.pt`` where there is one; otherwise start anew.

    Raises:
        RecipeError: the recipe is wrong, or not the one that the training to resume began with.
        DataError: annotations, pictures or ImageNet weights are wrong.
        TrainingDiverged: the loss is no longer a number.
    """
    console = Console()
    recipe = load_recipe(recipe_path)
    examples = _examples(recipe)
    trainer = build(recipe)
    folder = recipe.folder
    folder.mkdir(parents=True, exist_ok=True)
    if resume and (folder / "last.pt").exists():
        _resume(trainer, folder / "last.pt")
        console.print(f"resuming {folder / 'last.pt'} after epoch {trainer.epoch}")
    console.print(
        f"training {recipe.name}: {len(examples)} pictures an epoch, {recipe.schedule.epochs} epochs on "
        f"{trainer.device.type} in {str(trainer.precision).removeprefix('torch.')}"
    )
    with _progress(console) as progress:
        while trainer.epoch < recipe.schedule.epochs:
            _epoch(trainer, examples, progress, console)
    best = folder / "best.pt"
    console.print(f"done: {best}\nexport it: lookout export {best} --out {recipe.name}.onnx")
    return best


def build(recipe: Recipe) -> Trainer:
    """A trainer at its start, seeded by the recipe.

    Raises:
        RecipeError: the recipe asks for CUDA where there is none.
        DataError: the package with the ImageNet weights is missing.
    """
    torch.manual_seed(recipe.seed)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    device = _device(recipe)
    part = recipe.model
    model = Yolox(
        YoloxConfig(recipe.names, part.input_height, part.input_width, part.backbone_blocks, part.width)
    )
    if part.pretrained:
        load_imagenet_weights(model.backbone)
    for module in model.backbone.early(recipe.schedule.frozen_blocks):
        module.requires_grad_(False)
    model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    precision = _precision(recipe, device)
    return Trainer(
        recipe=recipe,
        device=device,
        model=model,
        average=MovingAverage(model, recipe.schedule.ema_decay),
        optimiser=_optimiser(model, recipe),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == torch.float16),
        precision=precision,
    )


def step(trainer: Trainer, batch: Batch, rate: float) -> float:
    """One update of the weights at ``rate``, a part of the highest learning rate; returns the loss.

    Raises:
        TrainingDiverged: the loss is no longer a number.
    """
    for group in trainer.optimiser.param_groups:
        group["lr"] = group["highest"] * rate
    model, device = trainer.model, trainer.device
    images = model.normalise(batch.images.to(device)).contiguous(memory_format=torch.channels_last)
    mixed = trainer.precision != torch.float32
    with torch.autocast(device.type, trainer.precision, enabled=mixed):
        raw = model(images)
    targets = [target.to(device) for target in batch.targets]
    where = grid(images.shape[2], images.shape[3], device)
    loss = detection_loss(raw.float(), where, targets).total
    if not loss.isfinite():
        raise TrainingDiverged(
            f"the loss became {loss.item()} in epoch {trainer.epoch + 1}; lower schedule.learning_rate "
            f"or set precision: float32, then continue with the same command"
        )
    trainer.optimiser.zero_grad(set_to_none=True)
    trainer.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    trainer.scaler.unscale_(trainer.optimiser)
    nn.utils.clip_grad_norm_(model.parameters(), trainer.recipe.schedule.clip_norm)
    trainer.scaler.step(trainer.optimiser)
    trainer.scaler.update()
    trainer.average.update(model)
    return loss.item()


def rate_at(progress: float, warmup: float) -> float:
    """The learning rate, as a part of the highest, at ``progress`` of the training (0 to 1)."""
    if progress < warmup:
        return progress / warmup
    along = (progress - warmup) / (1 - warmup)
    return _FINAL_RATE + (1 - _FINAL_RATE) * (1 + math.cos(math.pi * along)) / 2


def _epoch(trainer: Trainer, examples: list[Example], progress: Progress, console: Console) -> None:
    """Train one epoch, validate where it is due, and replace the checkpoints."""
    recipe, schedule = trainer.recipe, trainer.recipe.schedule
    started, total = time.monotonic(), 0.0
    steps = steps_per_epoch(len(examples), schedule.batch)
    task = progress.add_task(f"epoch {trainer.epoch + 1}", total=steps)
    trainer.model.train()
    for module in trainer.model.backbone.early(schedule.frozen_blocks):
        module.eval()
    samples = _samples(recipe, examples, trainer.epoch)
    for index, batch in enumerate(epoch_batches(samples, schedule.batch, recipe.workers)):
        done = (trainer.epoch + (index + 1) / steps) / schedule.epochs
        total += step(trainer, batch, rate_at(done, schedule.warmup_epochs / schedule.epochs))
        progress.update(
            task, advance=1, description=f"epoch {trainer.epoch + 1}  loss {total / (index + 1):.2f}"
        )
    trainer.epoch += 1
    progress.update(task, description=f"epoch {trainer.epoch}  validating")
    metrics = _validated(trainer)
    progress.remove_task(task)
    _save(trainer, metrics)
    console.print(
        f"epoch {trainer.epoch}/{schedule.epochs}  loss {total / steps:.2f}{_said(metrics)}  "
        f"{time.monotonic() - started:.0f} s",
        highlight=False,
        soft_wrap=True,
    )


def _save(trainer: Trainer, metrics: Metrics | None) -> None:
    """Replace ``best.pt`` where these weights are better or nothing is measured, and ``last.pt``."""
    folder, model, epoch = trainer.recipe.folder, trainer.average.model, trainer.epoch
    ap50 = None if metrics is None else metrics.AP50
    if trainer.recipe.data.validation is None:
        save_checkpoint(folder / "best.pt", model, epoch, None)
    elif ap50 is not None and ap50 > trainer.best_ap50:
        trainer.best_ap50 = ap50
        save_checkpoint(folder / "best.pt", model, epoch, ap50)
    save_checkpoint(folder / "last.pt", model, epoch, ap50, trainer.state())


def _validated(trainer: Trainer) -> Metrics | None:
    """The averaged weights' metrics, where the recipe has validation data and this epoch is due."""
    recipe = trainer.recipe
    source, epoch = recipe.data.validation, trainer.epoch
    due = epoch % recipe.schedule.validate_every == 0 or epoch == recipe.schedule.epochs
    if source is None or not due:
        return None
    return validate(trainer.average.model, source.annotations, source.images, trainer.device)


def _said(metrics: Metrics | None) -> str:
    if metrics is None:
        return ""
    classes = ", ".join(f"{name} {value:.2f}" for name, value in metrics.per_class_AP50.items())
    return f"  AP {metrics.AP:.3f}  AP50 {metrics.AP50:.3f} ({classes})"


def _samples(recipe: Recipe, examples: list[Example], epoch: int) -> EpochSamples:
    part = recipe.augmentation
    plain = epoch >= recipe.schedule.epochs - part.plain_epochs
    return EpochSamples(
        examples=examples,
        input_height=recipe.model.input_height,
        input_width=recipe.model.input_width,
        augmentation=Augmentation(
            flip=part.flip,
            mosaic=0.0 if plain else part.mosaic,
            crop=part.crop,
            shrink=part.shrink,
            hue=part.hue,
            saturation=part.saturation,
            brightness=part.brightness,
        ),
        seed=recipe.seed,
        epoch=epoch,
    )


def _examples(recipe: Recipe) -> list[Example]:
    found: list[Example] = []
    for source in recipe.data.train:
        examples = load_coco(
            source.annotations,
            source.images,
            recipe.names,
            partial=source.labelled == "partial",
            extend_top=source.extend_top,
        )
        found += examples * source.repeat
    return found


def _resume(trainer: Trainer, path: Path) -> None:
    """Restore ``trainer`` from ``path``, if it was written under the same recipe."""
    content = read_checkpoint(path)
    if content["training"] is None:
        raise RecipeError(
            f"{path}: has no training state; continue from a last.pt, or start anew with --restart"
        )
    before, now = content["training"]["recipe"], trainer.recipe.model_dump(mode="json")
    changed = [key for key in now if before.get(key) != now[key] and key not in _FREE_KEYS]
    if changed:
        raise RecipeError(
            f"{path}: began with another recipe ({', '.join(changed)} differ); "
            f"give the recipe another name, or start anew with --restart"
        )
    trainer.restore(content)


def _device(recipe: Recipe) -> torch.device:
    there = torch.cuda.is_available()
    if recipe.device == "cuda" and not there:
        raise RecipeError(
            "device: cuda was asked for, but torch finds no CUDA device; use device: cpu or auto"
        )
    return torch.device("cuda" if there and recipe.device != "cpu" else "cpu")


def _precision(recipe: Recipe, device: torch.device) -> torch.dtype:
    """What the network computes in; the loss is always float32."""
    if device.type == "cuda":
        mixed = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        return torch.float32 if recipe.precision == "float32" else mixed
    fast = bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    wanted = recipe.precision == "mixed" or (recipe.precision == "auto" and fast)
    return torch.bfloat16 if wanted else torch.float32


def _optimiser(model: Yolox, recipe: Recipe) -> torch.optim.AdamW:
    """The backbone learns more slowly; biases and batch norm do not decay."""
    schedule = recipe.schedule
    groups = []
    for in_backbone, highest in (
        (True, schedule.learning_rate * schedule.backbone_rate),
        (False, schedule.learning_rate),
    ):
        for decays in (True, False):
            chosen = [
                parameter
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
                and name.startswith("backbone.") == in_backbone
                and (parameter.ndim > 1) == decays
            ]
            decay = schedule.weight_decay if decays else 0.0
            groups.append({"params": chosen, "weight_decay": decay, "highest": highest})
    return torch.optim.AdamW(groups, lr=schedule.learning_rate)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
