"""Megvii's published files (``yolox_s.pth``, ``yolox_s.onnx``) into :class:`models.megvii_yolox.MegviiYolox`.

A ``.pth`` is a dict that has the state dict under ``model``; ``.onnx`` files have the same weights
(:mod:`models.megvii_onnx`). A file does not name its classes: 80 are taken to be
COCO's. Nor does it tell the order and range of its pixels: before YOLOX 0.1.1 they were others than here.
Knows nothing of recipes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.backbones.published import fitting, other_file, read_tensors
from models.coco_names import COCO_NAMES
from models.errors import DataError
from models.megvii_onnx import tensors_of_onnx
from models.megvii_yolox import SIZES, MegviiYolox, MegviiYoloxConfig, SizeName

_EXPECTED = "a YOLOX checkpoint of Megvii's, such as yolox_s.pth"
_STEM = "backbone.backbone.stem.conv.conv.weight"
_CLASS_LAYERS = "head.cls_preds."
"""What has a row for each class."""
_CLASS_BIAS = f"{_CLASS_LAYERS}0.bias"

Rows = Sequence[int | None]
"""For each class of a network, which class of a file it is; None for one that the file does not know."""


@dataclass(frozen=True, slots=True)
class MegviiFile:
    """One file, which has every tensor of a YOLOX of this size and nothing else."""

    path: Path
    size: SizeName
    classes: int
    tensors: dict[str, Tensor]

    def load_into(self, model: MegviiYolox, rows: Rows) -> None:
        """Fill ``model``, which is of this size; classes without a row stay as they are there."""
        state = model.state_dict()
        for key, tensor in self.tensors.items():
            if not key.startswith(_CLASS_LAYERS):
                state[key] = tensor
                continue
            known = [index for index, row in enumerate(rows) if row is not None]
            state[key] = state[key].clone()
            state[key][known] = tensor[[row for row in rows if row is not None]].to(state[key])
        model.load_state_dict(state, strict=True)


def read_megvii(path: Path) -> MegviiFile:
    """A file, checked tensor by tensor.

    Raises:
        DataError: it is missing, or is not a YOLOX of one of Megvii's sizes.
    """
    onnx = path.suffix == ".onnx"
    tensors = tensors_of_onnx(path) if onnx else read_tensors(path, _EXPECTED, inside="model")
    missing = [key for key in (_STEM, _CLASS_BIAS) if key not in tensors or not tensors[key].ndim]
    if missing:
        raise other_file(path, f"tensor {missing[0]!r} is missing or one number", _EXPECTED)
    stem, last = tensors[_STEM], tensors[_CLASS_BIAS]
    size = next((name for name, size in SIZES.items() if size.width == len(stem)), None)
    if size is None:
        widths = ", ".join(f"{size.width} ({name})" for name, size in SIZES.items())
        raise other_file(path, f"tensor {_STEM!r} has {len(stem)} channels", f"one of {widths}")
    with torch.device("meta"):
        wanted = MegviiYolox(MegviiYoloxConfig(("",) * len(last), size=size)).state_dict()
    fitting(
        path, tensors, wanted, (), f"YOLOX-{size} of {len(last)} classes, as its first and last tensors are"
    )
    return MegviiFile(path, size, len(last), tensors)


def class_rows(names: Sequence[str], classes: int) -> Rows:
    """Where the classes called ``names`` are among a file's: by COCO's names, or in order where it has as many."""
    if classes == len(COCO_NAMES) and not set(COCO_NAMES).isdisjoint(names):
        return [COCO_NAMES.index(name) if name in COCO_NAMES else None for name in names]
    return range(classes) if len(names) == classes else [None] * len(names)


def start_from(model: MegviiYolox, path: Path) -> str:
    """Load everything but the rows of classes that the file does not know; returns in a line what that was.

    Raises:
        DataError: the file is missing, holds something else, or is of another size.
    """
    file, config = read_megvii(path), model.config
    if file.size != config.size:
        raise DataError(
            f"{path}: is YOLOX-{file.size}, expected YOLOX-{config.size}; give another file, or size: {file.size}"
        )
    rows = class_rows(config.names, file.classes)
    file.load_into(model, rows)
    known = [name for name, row in zip(config.names, rows, strict=True) if row is not None]
    new = [name for name in config.names if name not in known]
    said = f"starts from {path.name}, a YOLOX-{file.size} of {file.classes} classes"
    return f"{said}; knows {_listed(known)}; has to learn {_listed(new)}"


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more or "none"


def detector_of(file: MegviiFile, names: tuple[str, ...], rows: Rows, height: int, width: int) -> MegviiYolox:
    """The detector of a file, in evaluation mode, for an input of ``height`` x ``width`` pixels."""
    model = MegviiYolox(MegviiYoloxConfig(names, height, width, file.size))
    file.load_into(model, rows)
    return model.eval()
