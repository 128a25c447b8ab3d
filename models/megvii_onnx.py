"""The weights in Megvii's published ONNX files (``yolox_s.onnx`` and its kin), by their names in a ``.pth``.

Convolutions stand there in the order in which they run, most with batch norm folded into them. The norm comes back as
one that adds the convolution's bias and does nothing else. Knows nothing of recipes.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from models.backbones.published import other_file
from models.coco_names import COCO_NAMES
from models.errors import DataError
from models.megvii_yolox import SIZES, MegviiYolox, MegviiYoloxConfig

_EXPECTED = "an ONNX file that Megvii published of a YOLOX, such as yolox_s.onnx"


def is_megvii_onnx(path: Path) -> bool:
    """Whether an ONNX file is to be read as Megvii's: lookout's own say that they are lookout's."""
    if path.suffix != ".onnx":
        return False
    try:
        entries = onnx.load(str(path), load_external_data=False).metadata_props
    except Exception:  # whoever reads it next says what is wrong with it
        return False
    return not any(entry.key.startswith("lookout.") for entry in entries)


def tensors_of_onnx(path: Path) -> dict[str, Tensor]:
    """Every tensor of the network in a file, with batch norms whose mean is 0 and whose deviation and weight are 1.

    Raises:
        DataError: it cannot be read, or its convolutions are not those of a YOLOX of one of Megvii's sizes.
    """
    kernels = _convolutions(path)
    if not kernels:
        raise other_file(path, "it has no convolutions", _EXPECTED)
    stem = len(kernels[0][0])
    size = next((name for name, size in SIZES.items() if size.width == stem), None)
    if size is None:
        raise other_file(path, f"its first convolution has {stem} channels", _EXPECTED)
    with torch.device("meta"):
        model = MegviiYolox(MegviiYoloxConfig(COCO_NAMES, size=size)).eval()
        names = _order_of_convolutions(model)
    if len(names) != len(kernels):
        raise other_file(path, f"it has {len(kernels)} convolutions, YOLOX-{size} {len(names)}", _EXPECTED)
    state: dict[str, Tensor] = {}
    for name, (kernel, bias) in zip(names, kernels, strict=True):
        state[f"{name}.weight"] = kernel
        if model.get_submodule(name).bias is not None:
            state[f"{name}.bias"] = bias
        else:
            norm = f"{name.removesuffix('.conv')}.bn"
            state |= folded_norm(norm, bias, model.get_submodule(norm))
    return state


def folded_norm(name: str, bias: Tensor, norm: nn.Module) -> dict[str, Tensor]:
    """The tensors of a batch norm that adds ``bias`` to what a convolution gives, and does nothing else."""
    assert isinstance(norm, nn.BatchNorm2d)
    one = torch.ones_like(bias)
    return {
        f"{name}.weight": one,
        f"{name}.bias": bias,
        f"{name}.running_mean": 0 * one,
        f"{name}.running_var": one - norm.eps,
        f"{name}.num_batches_tracked": torch.tensor(0),
    }


def _convolutions(path: Path) -> list[tuple[Tensor, Tensor]]:
    """Kernel and bias of each, as they run."""
    try:
        graph = onnx.load(str(path)).graph
        values = {tensor.name: torch.tensor(numpy_helper.to_array(tensor)) for tensor in graph.initializer}
        return [
            (values[node.input[1]].float(), values[node.input[2]].float())
            for node in graph.node
            if node.op_type == "Conv"
        ]
    except (KeyError, IndexError):
        raise other_file(path, "it has convolutions without a constant kernel and bias", _EXPECTED) from None
    except Exception as error:  # protobuf, onnx and OS errors share no base class
        raise DataError(f"{path}: cannot be read ({type(error).__name__}); expected {_EXPECTED}") from error


@torch.no_grad()
def _order_of_convolutions(model: nn.Module) -> list[str]:
    """The names of the convolutions, as they run."""
    names: list[str] = []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(lambda *_, name=name: names.append(name))
    model(torch.zeros(1, 3, 32, 32))
    return names
