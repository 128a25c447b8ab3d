"""The pictures of a recipe: those to learn from, and those to measure by. Knows nothing of how anything is learned."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import psutil

from models.annotated import CocoFile
from models.annotations import read_annotations, unlabelled
from models.coco import Example, examples_of, with_pictures
from models.errors import DataError, RecipeError
from models.evaluate import ground_truth
from models.problems import Problems
from models.recipe import Recipe, TrainingSource
from models.split import hold_out, numbered_apart
from models.validate import ValidationSet, load_validation

Sources = list[tuple[TrainingSource, CocoFile]]

_MEMORY_SHARE = 0.5
"""Of what is free, what decoded pictures may take."""


def training_data(recipe: Recipe) -> tuple[list[Example], ValidationSet | None]:
    """The training pictures, as often as each is used in an epoch, and the validation data where there is any.

    Raises:
        RecipeError: a class that no training data has as a category, or nothing sensible is left out.
        DataError: the data is wrong, or has no box of any class.
    """
    problems = Problems(skip=recipe.data.bad == "skip")
    sources = []
    for source in recipe.data.train:
        if source.annotations is None:
            file = unlabelled(source.images, recipe.names)
        else:
            file = read_annotations(source.annotations, source.images, recipe.names, problems, source.map)
            file = with_pictures(file, source.images, problems)
        sources.append((source, _without(file, source)))
    _check_categories(recipe, sources)
    wanted, validation = recipe.data.validation, None
    if recipe.data.hold_out is not None:
        sources, validation = _held_out(recipe, sources, recipe.data.hold_out)
    elif wanted is not None:
        validation = load_validation(wanted.annotations, wanted.images, recipe.names, wanted.map)
    examples: list[Example] = []
    for source, file in sources:
        partial = source.labelled == "partial"
        examples += examples_of(file, source.images, partial, source.extend_top) * source.repeat
    if recipe.distillation is None and not any(len(example.boxes) for example in examples):
        raise DataError(f"data.train: has no box of {', '.join(recipe.names)}; there is nothing to learn")
    return _in_memory(examples) if recipe.data.in_memory else examples, validation


def _in_memory(examples: list[Example]) -> list[Example]:
    """The examples with their pictures, each decoded once however often it is used."""
    different = {id(example): example for example in examples}
    needed = sum(3 * example.width * example.height for example in different.values())
    free = psutil.virtual_memory().available
    if needed > _MEMORY_SHARE * free:
        raise RecipeError(
            f"data.in_memory: {len(different)} decoded pictures take {needed / 1e9:.1f} GB, of which {free / 1e9:.1f} "
            "are free, and half of that is for the training; remove it, or give pictures of fewer pixels"
        )
    kept = {key: replace(example, kept=example.read()) for key, example in different.items()}
    return [kept[id(example)] for example in examples]


def _without(file: CocoFile, source: TrainingSource) -> CocoFile:
    """The file without the pictures that its source leaves out."""
    if source.leave_out is None:
        return file
    kept = [each for each in file.pictures if not fnmatch(Path(each.file_name).name, source.leave_out)]
    if len(kept) in (0, len(file.pictures)):
        what = "all" if not kept else "none"
        raise RecipeError(
            f"data.train: leave_out: {source.leave_out!r} matches {what} of {len(file.pictures)} pictures "
            f"of {file.path}; correct or remove it"
        )
    ids = {picture.image_id for picture in kept}
    boxes = tuple(each for each in file.annotations if each.image_id in ids)
    return replace(file, pictures=tuple(kept), annotations=boxes)


def _check_categories(recipe: Recipe, sources: Sources) -> None:
    categories = {name for _, file in sources for name in file.categories}
    unknown = [name for name in recipe.names if name not in categories]
    if unknown:
        others = ", ".join(sorted(categories - set(recipe.names))[:20]) or "no others"
        raise RecipeError(
            f"names: no training data has a category {', '.join(unknown)}; remove it or correct its "
            f"spelling (categories not in names: {others})"
        )


def _held_out(recipe: Recipe, sources: Sources, share: float) -> tuple[Sources, ValidationSet]:
    """Both parts; boxes to measure by are as they were annotated, pictures without any are learned from."""
    parts = [hold_out(file, 0 if source.annotations is None else share) for source, file in sources]
    learn, measure = zip(*parts, strict=True)
    apart = numbered_apart(measure)
    whole = replace(
        apart[0],
        pictures=tuple(picture for file in apart for picture in file.pictures),
        annotations=tuple(each for file in apart for each in file.annotations),
    )
    quiet = [replace(file, foreign=0, empty=0) for file in apart]  # told of with the training's
    examples = [
        example
        for (source, _), file in zip(sources, quiet, strict=True)
        for example in examples_of(file, source.images, source.labelled == "partial")
    ]
    truth = ground_truth(whole, recipe.names)
    rest = [(source, file) for (source, _), file in zip(sources, learn, strict=True)]
    return rest, ValidationSet(examples, truth, recipe.names)
