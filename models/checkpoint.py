"""Checkpoints: one file from which a detector, or an interrupted training, is rebuilt.

A checkpoint holds the architecture's configuration and the weights, and needs no recipe to be read.
``last.pt`` also holds the state of the training. Files are replaced atomically and read without
executing anything in them. Knows nothing of ONNX.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.detector import Detector
from models.errors import LookoutError
from models.families import FAMILIES

_FORMAT = "lookout-checkpoint"
_VERSION = 1


class CheckpointError(LookoutError):
    """A file that is not a checkpoint, or not one this version reads."""


@dataclass(frozen=True, slots=True)
class CheckpointMeta:
    """What a checkpoint says of itself besides its weights."""

    family: str
    names: tuple[str, ...]
    input_height: int
    input_width: int
    epoch: int
    """Epochs of training behind these weights."""
    ap50: float | None
    """Measured on the recipe's validation data, where it had any."""


def save_checkpoint(
    path: Path, model: Detector, epoch: int, ap50: float | None, training: dict[str, Any] | None = None
) -> None:
    """Write ``model`` to ``path`` so that a kill at any moment leaves the old file or the new one.

    Raises:
        CheckpointError: the file cannot be written, for example because the disk is full.
    """
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "family": model.family,
        "config": dataclasses.asdict(model.config),  # type: ignore[call-overload]
        "weights": model.state_dict(),
        "epoch": epoch,
        "ap50": ap50,
        "training": training,
    }
    unfinished = path.with_suffix(".partial")
    try:
        with unfinished.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as either
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: cannot be written ({reason}); make room there, then continue with the same command"
        ) from error


def load_checkpoint(path: Path) -> tuple[Detector, CheckpointMeta]:
    """The detector of a checkpoint, on the CPU and in evaluation mode.

    Raises:
        CheckpointError: the file is missing, damaged, or not a checkpoint.
    """
    content = read_checkpoint(path)
    try:
        model = FAMILIES[content["family"]].build(content["config"])
        model.load_state_dict(content["weights"], strict=True)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: damaged checkpoint ({reason}); train or download it again") from error
    meta = CheckpointMeta(
        family=model.family,
        names=model.config.names,
        input_height=model.config.input_height,
        input_width=model.config.input_width,
        epoch=content["epoch"],
        ap50=content["ap50"],
    )
    return model.eval(), meta


def is_checkpoint(path: Path) -> bool:
    """Whether a file says that it is lookout's (whether it can be read, :func:`load_checkpoint` tells)."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError):
        return False
    return isinstance(content, dict) and content.get("format") == _FORMAT


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint file as :func:`save_checkpoint` wrote it.

    Raises:
        CheckpointError: the file is missing, damaged, or not a checkpoint.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; expected a .pt file that `lookout train` wrote")
    other = f"{path}: not a checkpoint; expected a .pt file that `lookout train` wrote"
    if not zipfile.is_zipfile(path):
        raise CheckpointError(other)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(other) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: not a lookout checkpoint; expected a file that `lookout train` wrote")
    if content.get("version") != _VERSION or content.get("family") not in FAMILIES:
        raise CheckpointError(
            f"{path}: is {content.get('family')} version {content.get('version')}, "
            f"this lookout reads version {_VERSION} of {', '.join(FAMILIES)}"
        )
    return content
