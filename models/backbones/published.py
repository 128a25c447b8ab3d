"""Files of weights that others published: a dict of tensors, checked by name and shape.

Nothing in a file is executed. Knows nothing of any network.
"""

from __future__ import annotations

import pickle
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from torch import Tensor

from models.errors import DataError

_COUNTER = "num_batches_tracked"
"""Files older than torch 0.4.1 lack it; only a momentum of None would need it."""


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
    found = _read(path, expected)
    for key, tensor in found.items():
        if key not in wanted and not key.startswith(spare):
            raise _other(path, f"it has {key!r}, which this network lacks", expected)
        if key in wanted and tensor.shape != wanted[key].shape:
            shapes = f"{tuple(tensor.shape)}, expected {tuple(wanted[key].shape)}"
            raise _other(path, f"tensor {key!r} is {shapes}", expected)
    for key in wanted:
        if key not in found and not key.endswith(_COUNTER):
            raise _other(path, f"tensor {key!r} is missing", expected)
    return {key: found.get(key, own) for key, own in wanted.items()}


def _read(path: Path, expected: str) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, IndexError):
        raise _other(path, "it is no file of weights", expected) from None
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise _other(path, "it holds something else than tensors by name", expected)
    return content


def _other(path: Path, why: str, expected: str) -> DataError:
    return DataError(f"{path}: {why}; expected torchvision's weights, {expected}")


def package_file(package: str, inside: str) -> Path | None:
    """Where an installed package has its file ``inside``; None if the package is not installed."""
    try:
        return Path(str(distribution(package).locate_file(inside)))
    except PackageNotFoundError:
        return None
