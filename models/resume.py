"""What an interrupted training left behind, and whether it is the same training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.checkpoint import read_checkpoint
from models.errors import RecipeError
from models.recipe import Recipe

_FREE_KEYS = {
    "device",
    "precision",
    "workers",
    "threads",
    "runs",
    "schedule.batch",
    "schedule.learning_rate",
    "schedule.clip_norm",
}
"""What may change between a training and its continuation: the machine, and the remedies errors name."""


def left_behind(recipe: Recipe) -> dict[str, Any] | None:
    """The content of the recipe's ``last.pt``; None where there is none.

    Raises:
        RecipeError: it was written under another recipe, or cannot be continued from.
        CheckpointError: it cannot be read.
    """
    path = last(recipe)
    if not path.exists():
        return None
    content = read_checkpoint(path)
    if content["training"] is None:
        raise RecipeError(
            f"{path}: has no training state; continue from a last.pt, or start anew with --restart"
        )
    differences = _differences(content["training"]["recipe"], recipe.model_dump(mode="json"))
    changed = [key for key in differences if key not in _FREE_KEYS]
    if changed:
        raise RecipeError(
            f"{path}: began with another recipe ({', '.join(changed)} changed); "
            f"give the recipe another name, or start anew with --restart"
        )
    return content


def last(recipe: Recipe) -> Path:
    """Where a training is continued from."""
    return recipe.folder / "last.pt"


def is_finished(recipe: Recipe) -> bool:
    """Whether no epoch is left to be trained.

    Raises:
        RecipeError, CheckpointError: as :func:`left_behind`.
    """
    content = left_behind(recipe)
    return content is not None and content["epoch"] >= recipe.schedule.epochs


def _differences(before: Any, now: Any, where: str = "") -> list[str]:
    """The dotted keys of ``now`` that were different before; keys that are gone do not count."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            path
            for key in now
            for path in _differences(before.get(key), now[key], f"{where}.{key}" if where else key)
        ]
    if (
        isinstance(before, list)
        and isinstance(now, list)
        and [type(each) for each in now] == [dict] * len(before)
    ):
        return [
            path
            for index, pair in enumerate(zip(before, now, strict=True))
            for path in _differences(*pair, f"{where}.{index}")
        ]
    return [] if before == now else [where]
