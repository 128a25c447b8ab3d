"""Training from a recipe: epochs, checkpoints, validation, and the words about them.

After every epoch ``last.pt`` is replaced; a killed training continues from it as if it had not been
killed. ``best.pt`` holds the averaged weights with the best validation. Knows nothing of ONNX.
"""

from __future__ import annotations

import math
import shlex
import time
from collections import Counter
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from models.augment import Augmentation
from models.checkpoint import save_checkpoint
from models.coco import Example
from models.detector import Detector, Fit
from models.errors import RecipeError
from models.evaluate import Metrics
from models.families import FAMILIES
from models.lineage.proposal_cache import ProposalCache
from models.lineage.proposals import ProposalRule
from models.loader import EpochSamples, epoch_batches, steps_per_epoch
from models.machine import keep_freed_memory, machine_limits
from models.ranks import Ranks, ranks
from models.recipe import Recipe, load_phases
from models.resume import is_finished, last, left_behind
from models.run_report import EVENTS, RunReport
from models.start import start_from
from models.trainer import Trainer, build, network, rate_at, step
from models.training_data import training_data
from models.validate import ValidationSet, validate


def train(recipe_path: Path, resume: bool = True) -> Path:
    """Train a detector; returns the path of its best checkpoint.

    Of a recipe in phases each is a training, and those that are finished are not begun again.

    Args:
        recipe_path: YAML, see ``configs/train/``.
        resume: continue from ``last.pt`` where there is one; otherwise start anew, without the
            checkpoints of before.

    Raises:
        RecipeError: the recipe is wrong, or not the one that the training to resume began with.
        DataError: annotations, pictures or weights to start from are wrong.
        CheckpointError: a checkpoint cannot be read or written.
        TrainingDiverged: the loss or its gradient is no longer a number.
        TrainingStopped: out of memory, or a worker process was killed.
        RanksError: torchrun started more processes than there are GPUs.
    """
    *before, recipe = load_phases(recipe_path)
    with ranks(cuda=recipe.device != "cpu" and torch.cuda.is_available()) as these:
        console = Console(markup=False, highlight=False, soft_wrap=True, quiet=not these.first)
        for phase in before:
            if not (resume and is_finished(phase)):
                _train(phase, resume, these, console)
        return _train(recipe, resume, these, console)


def _train(recipe: Recipe, resume: bool, these: Ranks, console: Console) -> Path:
    _check_ranks(recipe, these)
    keep_freed_memory()
    with machine_limits():
        examples, validation = training_data(recipe)
        model = network(recipe)
        if these.first:
            _make_folder(recipe.folder, resume)
        these.agreed(None)  # the folder is there
        if recipe.data.proposals is not None:
            examples, validation = _proposed(recipe, examples, validation, console)
        report = RunReport(recipe, console.print) if these.first else None
        fit = FAMILIES[recipe.model.family].fit
        if fit is not None:
            assert report is not None
            _fit(fit, model, recipe, examples, validation, report, console)
            return _done(recipe, validation.examples if validation else examples, console)
        if recipe.model.start is not None and not last(recipe).exists():
            console.print(start_from(model, recipe.model.start, examples))
        trainer = build(recipe, model, these)
        _say_start(trainer, examples, console)
        _resume(trainer, validation, report, console)
        with _progress(console) as progress:
            while trainer.epoch < recipe.schedule.epochs and not _is_stale(trainer, console):
                _epoch(trainer, examples, validation, report, progress, console)
    return _done(recipe, validation.examples if validation else examples, console)


def _check_ranks(recipe: Recipe, these: Ranks) -> None:
    if these.count == 1:
        return
    if FAMILIES[recipe.model.family].fit is not None or recipe.data.proposals is not None:
        raise RecipeError(
            f"model.family: a {recipe.model.family} learns in one process; start it without torchrun"
        )
    if recipe.schedule.batch % these.count:
        raise RecipeError(
            f"schedule.batch: is {recipe.schedule.batch}, of which {these.count} processes have no equal parts"
        )


def _fit(
    fit: Fit,
    model: Detector,
    recipe: Recipe,
    examples: list[Example],
    validation: ValidationSet | None,
    report: RunReport,
    console: Console,
) -> None:
    """All of a training without epochs: fit, measure, keep."""
    started = time.monotonic()
    console.print(f"fitting {recipe.name}: {len(examples)} pictures")
    fit(model, examples, recipe.seed, console.print)
    save_checkpoint(recipe.folder / "best.pt", model.eval(), 1, None)  # measuring an R-CNN takes half an hour
    device = next(chain(model.parameters(), model.buffers())).device
    metrics = None
    if validation is not None:
        metrics, predictions = validate(model, validation, device)
        report.best(validation.examples, predictions)
    save_checkpoint(recipe.folder / "best.pt", model, 1, None if metrics is None else metrics.AP50)
    seconds = time.monotonic() - started
    report.epoch(1, seconds, {}, metrics)
    console.print(f"fitted{_said(metrics)}  {seconds:.0f} s")


def _done(recipe: Recipe, examples: list[Example], console: Console) -> Path:
    """Say where the best checkpoint is and how it is exported, and return it."""
    best, pictures = recipe.folder / "best.pt", examples[0].path.parent
    export = ["lookout", "export", str(best), "--out", f"{recipe.name}.onnx", "--pictures", str(pictures)]
    console.print(f"done: {best}\nexport it: {shlex.join(export)}")
    return best


def _epoch(
    trainer: Trainer,
    examples: list[Example],
    validation: ValidationSet | None,
    report: RunReport | None,
    progress: Progress,
    console: Console,
) -> None:
    """Train one epoch, keep it, then validate where it is due."""
    started, epochs = time.monotonic(), trainer.recipe.schedule.epochs
    task = progress.add_task(f"epoch {trainer.epoch + 1}", total=None)
    parts = trainer.parts
    losses = _train_epoch(trainer, examples, progress, task)
    if trainer.parts != parts:
        console.print(
            f"out of memory: each batch now goes through in {trainer.parts} parts, one step as before"
        )
    _save_last(trainer, None)
    progress.update(task, description=f"epoch {trainer.epoch}  validating")
    metrics = _judge(trainer, validation, report)
    progress.remove_task(task)
    seconds = time.monotonic() - started
    if report is None:
        return
    report.epoch(trainer.epoch, seconds, losses, metrics)
    loss = sum(losses.values())
    console.print(f"epoch {trainer.epoch}/{epochs}  loss {loss:.2f}{_said(metrics)}  {seconds:.0f} s")


def _is_stale(trainer: Trainer, console: Console) -> bool:
    patience = trainer.recipe.schedule.patience
    stale = patience is not None and trainer.stale >= patience
    if stale:
        console.print(f"no better since {trainer.stale} validations: ended after epoch {trainer.epoch}")
    return stale


def _train_epoch(
    trainer: Trainer, examples: list[Example], progress: Progress, task: TaskID
) -> dict[str, float]:
    """Every step of the next epoch; returns the mean of each loss."""
    recipe, schedule = trainer.recipe, trainer.recipe.schedule
    totals: Counter[str] = Counter()
    steps = math.ceil(steps_per_epoch(len(examples), schedule.batch) / schedule.accumulate)
    progress.update(task, total=steps)
    trainer.model.train()
    for module in trainer.model.early(schedule.frozen_blocks):
        module.eval()
    samples = _samples(recipe, examples, trainer.epoch, recolour=trainer.device.type == "cpu")
    batches = epoch_batches(samples, schedule.batch, recipe.workers, trainer.ranks)
    for index in range(steps):
        some = list(islice(batches, schedule.accumulate))
        done = (trainer.epoch + (index + 1) / steps) / schedule.epochs
        totals.update(step(trainer, some, rate_at(done, schedule.warmup_epochs / schedule.epochs)))
        said = f"epoch {trainer.epoch + 1}  loss {sum(totals.values()) / (index + 1):.2f}"
        progress.update(task, advance=1, description=said)
    trainer.epoch += 1
    return {name: total / steps for name, total in totals.items()}


def _judge(trainer: Trainer, validation: ValidationSet | None, report: RunReport | None) -> Metrics | None:
    """Measure where it is due; replace ``best.pt`` where that is better or nothing can be measured.

    One process does, and the others wait for what they have to know of it.
    """
    metrics = None if report is None else _measured(trainer, validation, report)
    trainer.best_ap50, trainer.stale = trainer.ranks.agreed((trainer.best_ap50, trainer.stale))
    return metrics


def _measured(trainer: Trainer, validation: ValidationSet | None, report: RunReport) -> Metrics | None:
    schedule, epoch, model = trainer.recipe.schedule, trainer.epoch, trainer.average.model
    best = trainer.recipe.folder / "best.pt"
    if validation is None:
        save_checkpoint(best, model, epoch, None)
        return None
    if epoch % schedule.validate_every and epoch != schedule.epochs:
        return None
    metrics, predictions = validate(model, validation, trainer.device)
    ap50 = metrics.AP50
    trainer.stale += 1
    if ap50 > trainer.best_ap50:
        trainer.best_ap50, trainer.stale = ap50, 0
        save_checkpoint(best, model, epoch, ap50)
        report.best(validation.examples, predictions)
    _save_last(trainer, ap50)
    return metrics


def _save_last(trainer: Trainer, ap50: float | None) -> None:
    """Replace ``last.pt``; without ``ap50`` a resumed training validates first, where it is due."""
    if not trainer.ranks.first:
        return
    path = last(trainer.recipe)
    save_checkpoint(path, trainer.average.model, trainer.epoch, ap50, trainer.state())


def _said(metrics: Metrics | None) -> str:
    if metrics is None:
        return ""
    classes = ", ".join(f"{name} {value:.2f}" for name, value in metrics.per_class_AP50.items())
    return f"  AP {metrics.AP:.3f}  AP50 {metrics.AP50:.3f} ({classes})"


def _samples(recipe: Recipe, examples: list[Example], epoch: int, *, recolour: bool = True) -> EpochSamples:
    part = recipe.augmentation
    plain = epoch >= recipe.schedule.epochs - part.plain_epochs
    return EpochSamples(
        examples=examples,
        input_height=recipe.model.input_height,
        input_width=recipe.model.input_width,
        augmentation=Augmentation(
            flip=part.flip,
            mosaic=0.0 if plain else part.mosaic,
            mixup=0.0 if plain else part.mixup,
            paste=0.0 if plain else part.paste,
            crop=part.crop,
            shrink=part.shrink,
            hue=part.hue,
            saturation=part.saturation,
            brightness=part.brightness,
        ),
        sizes=(1.0, 1.0) if plain else part.sizes,
        seed=recipe.seed,
        epoch=epoch,
        recolour=recolour,
    )


def _proposed(
    recipe: Recipe, examples: list[Example], validation: ValidationSet | None, console: Console
) -> tuple[list[Example], ValidationSet | None]:
    """Both with proposals, which are kept in the training's folder."""
    rule = ProposalRule.parse(recipe.network()["proposals"])
    height, width = recipe.model.input_height, recipe.model.input_width
    cache = ProposalCache(recipe.folder / "proposals", rule, height, width)
    console.print(f"proposals: {rule} of every picture, in {cache.folder}")
    examples = cache.add_to(examples, recipe.workers)
    if validation is not None:
        validation = replace(validation, examples=cache.add_to(validation.examples, recipe.workers))
    return examples, validation


def _say_start(trainer: Trainer, examples: list[Example], console: Console) -> None:
    recipe = trainer.recipe
    classes = np.concatenate([example.classes for example in examples])
    counts = np.bincount(classes, minlength=len(recipe.names)).tolist()
    console.print(
        f"training {recipe.name}: {len(examples)} pictures an epoch, {recipe.schedule.epochs} epochs on "
        f"{trainer.device.type} in {str(trainer.precision).removeprefix('torch.')}\nboxes an epoch: "
        + ", ".join(f"{name} {count}" for name, count in zip(recipe.names, counts, strict=True))
    )


def _make_folder(folder: Path, resume: bool) -> None:
    """Make the training's folder; without ``resume``, remove the checkpoints in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not resume:
            for name in ("best.pt", "last.pt", "metrics.csv", EVENTS):
                (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise RecipeError(
            f"runs: {folder} cannot be made or written to ({error.strerror}); give another folder"
        ) from error


def _resume(
    trainer: Trainer, validation: ValidationSet | None, report: RunReport | None, console: Console
) -> None:
    """Continue from ``last.pt`` where there is one."""
    content = left_behind(trainer.recipe)
    if content is None:
        return
    trainer.restore(content)
    console.print(f"resuming {last(trainer.recipe)} after epoch {trainer.epoch}")
    # It may have been killed between its last epoch and that one's validation. As the first process read it: that one
    # replaces the file next.
    if trainer.ranks.agreed(content["ap50"] is None):
        metrics = _judge(trainer, validation, report)
        if metrics is not None:
            console.print(f"epoch {trainer.epoch}/{trainer.recipe.schedule.epochs}{_said(metrics)}")


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
