"""Files of weights that others published: a dict of tensors, checked by name and shape.

Nothing in a file is executed. Knows nothing of any network.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.errors import DataError

_COUNTER = "num_batches_tracked"
"""Files older than torch 0.4.1 lack it; only a momentum of None would need it."""

_NUMPY_NUMBER: list[Any] = [np.float64().__reduce__()[0], np.dtype, np.dtypes.Float64DType]
"""What a NumPy number is made of again: trainings note their figures beside the weights."""


def published_weights(
    path: Path, wanted: dict[str, Tensor], spare: tuple[str, ...], expected: str
) -> dict[str, Tensor]:
    """The tensors of ``path`` for a network whose own are ``wanted``.

    Args:
        path: what ``torch.save`` wrote of a state dict.
        wanted: the network's state dict.
        spare: prefixes of what the file may hold and the network lack; it is left out.
        expected: which file belongs here, for the error.

    Raises:
        DataError: the file is missing, holds something else, or a tensor is missing, has another shape, or
            is one the network does not know.
    """
    return fitting(path, read_tensors(path, expected), wanted, spare, expected)


def fitting(
    path: Path,
    found: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    spare: tuple[str, ...],
    expected: str,
) -> dict[str, Tensor]:
    """As :func:`published_weights`, of a file whose tensors ``found`` are read already."""
    for key, tensor in found.items():
        if key not in wanted and not key.startswith(spare):
            raise other_file(path, f"it has {key!r}, which this network lacks", expected)
        if key in wanted and tensor.shape != wanted[key].shape:
            shapes = f"{tuple(tensor.shape)}, expected {tuple(wanted[key].shape)}"
            raise other_file(path, f"tensor {key!r} is {shapes}", expected)
    for key in wanted:
        if key not in found and not key.endswith(_COUNTER):
            raise other_file(path, f"tensor {key!r} is missing", expected)
    return {key: found.get(key, own) for key, own in wanted.items()}


def read_tensors(path: Path, expected: str, inside: str | None = None) -> dict[str, Tensor]:
    """The state dict that ``torch.save`` wrote to ``path``.

    Args:
        inside: the key under which a file that holds more than that has it.
        expected: which file belongs here, for the error.

    Raises:
        DataError: the file is missing, or holds something else.
    """
    try:
        with torch.serialization.safe_globals(_NUMPY_NUMBER):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, IndexError):
        raise other_file(path, "it is no file of weights", expected) from None
    if inside is not None:
        content = content.get(inside) if isinstance(content, dict) else None
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        where = "" if inside is None else f" under {inside!r}"
        raise other_file(path, f"it holds something else than tensors by name{where}", expected)
    return content


def other_file(path: Path, why: str, expected: str) -> DataError:
    """What is said of a file that is not the one for a network."""
    return DataError(f"{path}: {why}; expected {expected}")


def package_file(package: str, inside: str) -> Path | None:
    """Where an installed package has its file ``inside``; None if the package is not installed."""
    try:
        return Path(str(distribution(package).locate_file(inside)))
    except PackageNotFoundError:
        return None
