"""How a detector wants its pixels: order, range, layout, type; as graph nodes and, plainly, in NumPy.

Knows nothing of families or of what the pixels are for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from export.artifact import Resize
from export.graph import OPSET, parse, with_constants

Color = Literal["rgb", "bgr"]
Layout = Literal["nchw", "nhwc", "chw"]
Triple = tuple[float, float, float]
Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class PixelRule:
    """``(value - mean) / std`` of each channel, values 0-255; mean and std are in the order of ``color``."""

    color: Color = "rgb"
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    resize: Resize = "letterbox"

    def changed(
        self,
        *,
        color: Color | None = None,
        mean: Triple | None = None,
        std: Triple | None = None,
        resize: Resize | None = None,
    ) -> PixelRule:
        """The rule with what is given in place of its own."""
        return replace(
            self,
            color=color or self.color,
            mean=mean or self.mean,
            std=std or self.std,
            resize=resize or self.resize,
        )

    def __str__(self) -> str:
        def shown(triple: Triple) -> str:
            values = [f"{value:g}" for value in triple]
            return values[0] if len(set(values)) == 1 else ",".join(values)

        range_ = "0-255"
        if any(self.mean) or self.std != (1.0, 1.0, 1.0):
            range_ = f"(0-255 - {shown(self.mean)}) / {shown(self.std)}"
        return f"{self.color.upper()} {range_}, {self.resize}"


UNIT = PixelRule(std=(255.0, 255.0, 255.0))
"""RGB 0-1, as most of today's exporters."""

IMAGENET = PixelRule(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
"""RGB by the mean and standard deviation of ImageNet, as torchvision's backbones."""


def preprocess(
    rule: PixelRule,
    height: int,
    width: int,
    layout: Layout = "nchw",
    kind: str = "float32",
    opset: int = OPSET,
) -> onnx.ModelProto:
    """``images`` uint8 (B, H, W, 3) RGB to ``pixels`` as the model wants them; B is 1 for layout ``chw``.

    Planes are moved as bytes and cast last: a quarter of the memory traffic of the other order.

    Args:
        rule: order and range.
        height: of the input, pixels.
        width: of the input, pixels.
        layout: of ``pixels``; ``chw`` has no batch.
        kind: NumPy's name of the element type of ``pixels``.
        opset: of the graph.
    """
    element = int(helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
    name = onnx.TensorProto.DataType.Name(element).lower()
    shape = {
        "nhwc": f"B, {height}, {width}, 3",
        "nchw": f"B, 3, {height}, {width}",
        "chw": f"3, {height}, {width}",
    }
    constants = _range(rule, layout)
    given = "".join(f", float[A, A2, A3] {which}" for which in constants)
    body = "\n".join(_steps(rule, layout, element))
    model = parse(
        f"""
        preprocess (uint8[B, {height}, {width}, 3] images{given}) => ({name}[{shape[layout]}] pixels)
        {{
            {body}
        }}
        """,
        opset,
    )
    return with_constants(model, constants)


def _range(rule: PixelRule, layout: Layout) -> dict[str, npt.NDArray[np.float32]]:
    """``mean`` and ``std`` to broadcast over ``layout``; nothing where the bytes stay as they are."""
    if rule.mean == (0.0, 0.0, 0.0) and rule.std == (1.0, 1.0, 1.0):
        return {}
    channels = (1, 1, 3) if layout == "nhwc" else (3, 1, 1)
    return {
        which: np.array(values, np.float32).reshape(channels)
        for which, values in (("mean", rule.mean), ("std", rule.std))
    }


def _steps(rule: PixelRule, layout: Layout, element: int) -> list[str]:
    """The graph's nodes in ONNX's text form, from ``images`` to ``pixels``."""
    steps, value = [], "images"
    if layout != "nhwc":
        steps.append("moved = Transpose <perm = [0, 3, 1, 2]> (images)")
        value = "moved"
    if rule.color == "bgr":
        steps.append("order = Constant <value_ints = [2, 1, 0]> ()")
        steps.append(f"ordered = Gather <axis = {3 if layout == 'nhwc' else 1}> ({value}, order)")
        value = "ordered"
    if _range(rule, layout):
        steps += [
            f"floats = Cast <to = 1> ({value})",
            "centred = Sub (floats, mean)",
            "ranged = Div (centred, std)",
        ]
        value = "ranged"
    if layout == "chw":
        steps += ["first = Constant <value_ints = [0]> ()", f"one = Squeeze ({value}, first)"]
        value = "one"
    return [*steps, f"pixels = Cast <to = {element}> ({value})"]


def plain(rule: PixelRule, picture: npt.NDArray[np.uint8], layout: Layout, kind: str) -> Array:
    """The reference for :func:`preprocess`: one picture uint8 (H, W, 3) RGB, with a batch of 1 where there is one."""
    ordered = picture[:, :, ::-1] if rule.color == "bgr" else picture
    ranged = (ordered.astype(np.float32) - np.array(rule.mean, np.float32)) / np.array(rule.std, np.float32)
    if layout == "nhwc":
        return np.ascontiguousarray(ranged[None].astype(kind))
    planes = ranged.transpose(2, 0, 1)
    return np.ascontiguousarray((planes if layout == "chw" else planes[None]).astype(kind))
