"""The weights and everything else that changes during a training, and one step of it.

AdamW on a decoupled learning rate, mixed precision where it is safe, gradients clipped, weights
averaged. Knows nothing of files, epochs or validation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.blockwise import misfit, walk
from models.detector import Detector
from models.ema import MovingAverage
from models.errors import LookoutError, RecipeError
from models.families import FAMILIES
from models.grid_detector import GridDetector
from models.loader import Batch
from models.ranks import Ranks
from models.recipe import Recipe
from models.recolour import recoloured
from models.start import load_detector
from models.target import moved
from models.teacher import Imitation, Teacher

_ALONE = Ranks()
_FINAL_RATE = 0.01
"""The learning rate at the end, as a part of the highest."""


class TrainingDiverged(LookoutError):
    """The loss or its gradient is no longer a number."""


@dataclass(slots=True)
class Trainer:
    """Everything that changes during a training."""

    recipe: Recipe
    device: torch.device
    model: Detector
    average: MovingAverage[Detector]
    optimiser: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    precision: torch.dtype
    ranks: Ranks = _ALONE
    teacher: Teacher | None = None
    epoch: int = 0
    """Finished epochs."""
    best_ap50: float = -1.0
    stale: int = 0
    """Validations since the best."""
    parts: int = 1
    """Each batch goes through in so many: more, where the device's memory was too small for less."""

    def state(self) -> dict[str, Any]:
        """What a resumed training needs besides the averaged weights."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "updates": self.average.updates,
            "best_ap50": self.best_ap50,
            "stale": self.stale,
            "parts": self.parts,
            "random": torch.get_rng_state(),
            "imitation": None if self.imitation is None else self.imitation.state_dict(),
        }

    @property
    def imitation(self) -> Imitation | None:
        """What learns beside the model, and is not part of it."""
        return None if self.teacher is None else self.teacher.imitation

    def parameters(self) -> Iterator[nn.Parameter]:
        """Everything that learns."""
        yield from self.model.parameters()
        if self.imitation is not None:
            yield from self.imitation.parameters()

    def restore(self, content: dict[str, Any]) -> None:
        """Continue from the content of a ``last.pt``; the learning rates stay the recipe's."""
        state = content["training"]
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(content["weights"])
        self.average.updates = state["updates"]
        highest = [group["highest"] for group in self.optimiser.param_groups]
        self.optimiser.load_state_dict(state["optimiser"])
        for group, rate in zip(self.optimiser.param_groups, highest, strict=True):
            group["highest"] = rate
        if state["scaler"]:  # empty where the training so far had no need of one
            self.scaler.load_state_dict(state["scaler"])
        self.best_ap50 = state["best_ap50"]
        self.stale, self.parts = state.get("stale", 0), state.get("parts", 1)  # not in older files
        if self.imitation is not None:
            self.imitation.load_state_dict(state["imitation"])
        self.epoch = content["epoch"]
        torch.set_rng_state(state["random"])


def network(recipe: Recipe) -> Detector:
    """The recipe's network at its start, seeded by the recipe, on its device.

    Raises:
        RecipeError: the recipe asks for CUDA where there is none, or for a network that cannot be.
        DataError: the package with the ImageNet weights is missing.
    """
    torch.manual_seed(recipe.seed)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    part = recipe.model
    device = _device(recipe)
    try:
        model = FAMILIES[part.family].build(recipe.network())
    except ValueError as error:  # values that each are possible, but not together
        raise RecipeError(f"model: {error}") from error
    if part.pretrained and part.start is None:
        model.start_from_imagenet()
    for module in model.early(recipe.schedule.frozen_blocks):
        module.requires_grad_(False)
    return model.to(device)


def build(recipe: Recipe, model: Detector, ranks: Ranks = _ALONE) -> Trainer:
    """A trainer at its start, of the recipe's :func:`network`."""
    device = _device(recipe)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    precision = _precision(recipe, device)
    teacher = _teacher(recipe, model, device)
    return Trainer(
        recipe=recipe,
        device=device,
        model=model,
        average=MovingAverage(model, recipe.schedule.ema_decay),
        optimiser=_optimiser(model, recipe, teacher),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == torch.float16),
        precision=precision,
        ranks=ranks,
        teacher=teacher,
    )


def _teacher(recipe: Recipe, student: Detector, device: torch.device) -> Teacher | None:
    part = recipe.distillation
    if part is None:
        return None
    size = student.config.input_height, student.config.input_width
    model = load_detector(part.teacher, *size)
    if not isinstance(model, GridDetector):
        raise RecipeError(
            f"distillation.teacher: {part.teacher} is a {model.family}, expected a detector with cells"
        )
    assert isinstance(student, GridDetector)  # the recipe made sure of it
    blocks = len(student.blocks()) + 1
    if part.alone and part.alone[1] > blocks:
        raise RecipeError(
            f"distillation.alone: is {list(part.alone)}, expected two of 1 to {blocks}: the backbone's blocks, "
            "and what is behind it"
        )
    try:
        return Teacher.of(model, student, part.weight, part.imitation, part.hints, device, part.blocks > 0)
    except ValueError as error:
        raise RecipeError(f"distillation.teacher: {part.teacher} {error}") from error


def step(trainer: Trainer, batches: Sequence[Batch], rate: float) -> dict[str, float]:
    """One update of the weights at ``rate``, a part of the highest learning rate; returns the mean losses by name.

    Where a GPU's memory is too small, batches are cut in half from then on (``trainer.parts``), down to pictures.

    Args:
        trainer: is changed.
        batches: whose mean gradient is followed.
        rate: 0 to 1.

    Raises:
        TrainingDiverged: the loss or its gradient is no longer a number; the weights are as before.
    """
    for group in trainer.optimiser.param_groups:
        group["lr"] = group["highest"] * rate
    while True:
        try:
            means = _add_up(trainer, [part for batch in batches for part in _parts(batch, trainer.parts)])
            break
        except torch.OutOfMemoryError:
            if trainer.parts >= max(len(batch.targets) for batch in batches):
                raise
        trainer.parts *= 2
        torch.cuda.empty_cache()
    trainer.ranks.average(trainer.parameters())
    trainer.scaler.unscale_(trainer.optimiser)
    norm = nn.utils.clip_grad_norm_(trainer.parameters(), trainer.recipe.schedule.clip_norm)
    # A scaler skips steps that overflow, and scales less next time; without scaling that is no remedy.
    if not norm.isfinite() and trainer.scaler.get_scale() <= 1:
        raise _diverged(trainer, "gradient", norm)
    trainer.scaler.step(trainer.optimiser)
    trainer.scaler.update()
    trainer.average.update(trainer.model)
    return means


def _parts(batch: Batch, count: int) -> Iterator[Batch]:
    size = math.ceil(len(batch.targets) / count)
    for start in range(0, len(batch.targets), size):
        part = slice(start, start + size)
        colours = None if batch.colours is None else batch.colours[part]
        yield Batch(batch.images[part], batch.targets[part], colours)


def _add_up(trainer: Trainer, batches: Sequence[Batch]) -> dict[str, float]:
    """Leave the mean gradient of the pictures in the weights; returns the mean losses."""
    trainer.optimiser.zero_grad(set_to_none=True)
    means: Counter[str] = Counter()
    pictures = sum(len(batch.targets) for batch in batches)
    for batch in batches:
        losses = _losses(trainer, batch)
        each = torch.stack(list(losses.values())) * (len(batch.targets) / pictures)
        loss = each.sum()
        if not loss.isfinite():
            raise _diverged(trainer, "loss", loss)
        trainer.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        means.update(dict(zip(losses, each.tolist(), strict=True)))
    return dict(means)


def _losses(trainer: Trainer, batch: Batch) -> dict[str, Tensor]:
    model, device, teacher = trainer.model, trainer.device, trainer.teacher
    pixels = batch.images.to(device)
    if batch.colours is not None:
        pixels = recoloured(pixels, batch.colours.to(device))
    images = model.normalise(pixels).contiguous(memory_format=torch.channels_last)
    mixed = trainer.precision != torch.float32
    targets = moved(batch.targets, device)
    with torch.autocast(device.type, trainer.precision, enabled=mixed):
        if teacher is None:
            return model.losses(images, targets)
        assert isinstance(model, GridDetector)
        assert trainer.recipe.distillation is not None
        part = trainer.recipe.distillation
        alone = part.blocks_alone
        targets, wanted = teacher.teach(pixels, targets, alone)
        given = wanted if alone else None
        own = walk(model, images, given, alone)
        losses = {}
        if own.maps:
            losses = model.losses_of((given or own).maps, images, targets)
            losses["taught"] = losses["taught"] * teacher.weight
        if teacher.imitation is not None:
            losses["imitation"] = teacher.imitation(own.imitated, wanted.imitated)
        if part.blocks:
            losses["blocks"] = misfit(own.linear, wanted.linear[-len(own.linear) :]) * part.blocks
    return losses


def _diverged(trainer: Trainer, what: str, value: Tensor) -> TrainingDiverged:
    return TrainingDiverged(
        f"the {what} became {value.item()} in epoch {trainer.epoch + 1}; lower schedule.learning_rate or "
        f"schedule.clip_norm, or set precision: float32, then continue with the same command"
    )


def rate_at(progress: float, warmup: float) -> float:
    """The learning rate, as a part of the highest, at ``progress`` of the training (0 to 1)."""
    if progress < warmup:
        return progress / warmup
    along = (progress - warmup) / (1 - warmup)
    return _FINAL_RATE + (1 - _FINAL_RATE) * (1 + math.cos(math.pi * along)) / 2


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


def _optimiser(model: Detector, recipe: Recipe, teacher: Teacher | None) -> torch.optim.AdamW:
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
    if teacher is not None and teacher.imitation is not None:
        groups.append(
            {
                "params": list(teacher.imitation.parameters()),
                "weight_decay": 0.0,
                "highest": schedule.learning_rate,
            }
        )
    return torch.optim.AdamW(groups, lr=schedule.learning_rate)
