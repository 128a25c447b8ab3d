"""Megvii's published YOLOX-nano, taken out of the ONNX file beside the project: weights that really were learned."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from models.coco_names import COCO_NAMES
from models.megvii_yolox import MegviiYolox, MegviiYoloxConfig


def nano_from_onnx(path: Path) -> MegviiYolox:
    """The network with the file's weights, in evaluation mode, for 416x416.

    The file has its convolutions in the order in which they run, with batch norm folded into them. Here the norm
    changes nothing but to add the bias.
    """
    model = MegviiYolox(MegviiYoloxConfig(COCO_NAMES, 416, 416, "nano")).eval()
    graph = onnx.load(str(path)).graph
    values = {tensor.name: torch.tensor(numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    folded = [(values[node.input[1]], values[node.input[2]]) for node in graph.node if node.op_type == "Conv"]
    order = _order_of_convolutions(model)
    assert len(order) == len(folded) == 113
    state = model.state_dict()
    for name, (kernel, bias) in zip(order, folded, strict=True):
        assert kernel.shape == state[f"{name}.weight"].shape
        state[f"{name}.weight"] = kernel
        if f"{name}.bias" in state:
            state[f"{name}.bias"] = bias
            continue
        norm = f"{name.removesuffix('.conv')}.bn"
        state[f"{norm}.weight"] = (1 + 1e-3) ** 0.5 * torch.ones_like(
            bias
        )  # of a variance of 1 and its epsilon
        state[f"{norm}.bias"] = bias
    model.load_state_dict(state, strict=True)
    return model


@torch.no_grad()
def restore_norms(model: MegviiYolox, images: Tensor) -> None:
    """Give batch norm the statistics of normalised ``images``, so that it can be trained on; outputs stay the same."""

    def measure(norm: nn.BatchNorm2d, given: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(given[0], (0, 2, 3))
        norm.load_state_dict(
            {
                **norm.state_dict(),
                "running_mean": mean,
                "running_var": variance,
                "weight": (variance + norm.eps).sqrt(),
                "bias": norm.bias + mean,
            }
        )

    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    model.eval()(images)
    for hook in hooks:
        hook.remove()


def _order_of_convolutions(model: nn.Module) -> list[str]:
    """The names of the convolutions, as they run."""
    names: list[str] = []

    def note(name: str) -> None:
        names.append(name)

    hooks = [
        layer.register_forward_pre_hook(lambda *_, name=name: note(name))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d)
    ]
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return names


def as_published(model: MegviiYolox, path: Path, **besides: object) -> dict[str, Tensor]:
    """Write ``model`` as Megvii does, with what else is in their files; returns its tensors."""
    state = model.state_dict()
    torch.save({"model": state, "start_epoch": 300, **besides}, path)
    return state
