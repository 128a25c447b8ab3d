"""Darknet's ``.weights`` files: a header, then every layer's float32 numbers in the order of the layers.

The header is three int32 (major, minor and revision of the format) and the number of pictures that training
has seen: int64 from version 0.2 on, int32 before. Of a convolution come the biases, or with batch norm its
biases, scales, means and variances; then the kernel (out, in, height, width). All of it little-endian.
Nothing in the file says what it belongs to but its length, so that has to fit exactly.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.lineage.darknet_cfg import DarknetError
from models.lineage.darknet_layers import Convolutional

_VERSION_BYTES = 12


def load_weights(layers: list[Convolutional], path: Path) -> None:
    """Fill ``layers`` from a file.

    Raises:
        DarknetError: it cannot be read, has another header, or has too few or too many numbers.
    """
    numbers = _numbers(path)
    tensors = [tensor for layer in layers for tensor in _tensors(layer)]
    wanted = sum(tensor.numel() for tensor in tensors)
    if wanted != len(numbers):
        what = "lacks" if len(numbers) < wanted else "has left over"
        raise DarknetError(
            f"{path}: {what} {abs(wanted - len(numbers))} numbers: it has {len(numbers)}, the .cfg needs "
            f"{wanted}; give the .weights file that belongs to this .cfg"
        )
    position = 0
    with torch.no_grad():
        for tensor in tensors:
            part = numbers[position : position + tensor.numel()]
            tensor.copy_(torch.from_numpy(part.astype(np.float32)).reshape(tensor.shape))
            position += tensor.numel()


def _tensors(layer: Convolutional) -> list[Tensor]:
    """The tensors of one layer, in the file's order."""
    if layer.norm is None:
        assert layer.convolution.bias is not None
        return [layer.convolution.bias, layer.convolution.weight]
    mean, variance = layer.norm.running_mean, layer.norm.running_var
    assert mean is not None
    assert variance is not None
    return [layer.norm.bias, layer.norm.weight, mean, variance, layer.convolution.weight]


def _numbers(path: Path) -> npt.NDArray[np.float32]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DarknetError(
            f"{path}: cannot be read ({error.strerror}); expected a Darknet .weights file"
        ) from error
    if len(content) < _VERSION_BYTES:
        raise DarknetError(f"{path}: has {len(content)} bytes, less than a header; expected a .weights file")
    major, minor, _ = np.frombuffer(content, "<i4", 3).tolist()
    if not (0 <= major <= 1000 and 0 <= minor <= 1000):
        raise DarknetError(
            f"{path}: says it is of version {major}.{minor}; expected a Darknet .weights file (0.1, 0.2)"
        )
    start = _VERSION_BYTES + (8 if major * 10 + minor >= 2 else 4)
    if len(content) < start or (len(content) - start) % 4:
        raise DarknetError(f"{path}: its {len(content)} bytes are no header and whole numbers; it is cut off")
    return np.frombuffer(content, "<f4", offset=start)
