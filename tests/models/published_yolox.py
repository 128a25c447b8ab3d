"""Megvii's published YOLOX-nano, from the ONNX file beside the project: weights that really were learned."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from models.coco_names import COCO_NAMES
from models.megvii_weights import detector_of, read_megvii
from models.megvii_yolox import MegviiYolox


def nano_from_onnx(path: Path) -> MegviiYolox:
    """The network with the file's weights, in evaluation mode, for 416x416."""
    return detector_of(read_megvii(path), COCO_NAMES, range(80), 416, 416)


def as_published(model: MegviiYolox, path: Path, **besides: object) -> dict[str, Tensor]:
    """Write ``model`` as Megvii does, with what else is in their files; returns its tensors."""
    state = model.state_dict()
    torch.save({"model": state, "start_epoch": 300, **besides}, path)
    return state
