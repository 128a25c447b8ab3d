"""Small networks with the heads of the YOLO families, as their own exporters leave them, seeded."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

torch = pytest.importorskip("torch", reason="needs the train extra")
nn = torch.nn

CLASSES = 3
HEIGHT, WIDTH = 128, 192
NAMES = ("cat", "dog", "bird")
ULTRALYTICS = {
    "task": "detect",
    "stride": "32",
    "names": str(dict(enumerate(NAMES))),
    "imgsz": str([HEIGHT, WIDTH]),
}


class Pyramid(nn.Module):
    """Features (B, 16, H / s, W / s) of strides s = 8, 16, 32, spread enough to give varied detections."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 8, 8)
        self.down = nn.ModuleList(nn.Conv2d(16, 16, 3, 2, 1) for _ in range(2))

    def forward(self, pixels: Any) -> list[Any]:
        features = [torch.nn.functional.silu(self.stem(pixels))]
        for conv in self.down:
            features.append(torch.nn.functional.silu(conv(features[-1])))
        return features


def spread(module: Any, pixel_range: float = 1.0, seed: int = 0, gain: float = 3.0) -> Any:
    """The module in evaluation, its weights drawn anew and large enough that scores differ from 0.5.

    ``pixel_range`` is what its pixels reach.
    """
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        fan_in = max(1, weight[0].numel()) if weight.dim() > 1 else 1
        scale = gain / fan_in**0.5 if weight.dim() > 1 else 0.3
        weight.data = torch.randn(weight.shape, generator=generator) * scale
    if pixel_range != 1.0:
        module.pyramid.stem.weight.data /= pixel_range
    return module.eval()


def export(
    module: Any,
    path: Path,
    *,
    height: int = HEIGHT,
    width: int = WIDTH,
    dynamic: bool = False,
    metadata: Mapping[str, str] | None = None,
    opset: int = 12,
    layout: str = "nchw",
    takes_any_size: bool = False,
) -> Path:
    """The module as an ONNX file for pictures of height x width.

    By torch's older exporter, whose opsets 11 to 17 most files that people have are of, and which is
    quick; from 18 on by its newer one.
    """
    sides = (3, height, width) if layout == "nchw" else (height, width, 3)
    pixels = torch.rand((2 if dynamic else 1, *sides), generator=torch.manual_seed(0))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter's remarks on itself and on constants
        if opset < 18:
            open_axes = {0: "batch"} if dynamic else {}
            open_axes |= {2: "height", 3: "width"} if takes_any_size else {}
            axes = {"images": open_axes}
            options = {"input_names": ["images"], "dynamic_axes": axes, "opset_version": opset}
            torch.onnx.export(module, (pixels,), buffer, dynamo=False, **options)
        else:
            shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
            options = {"dynamic_shapes": shapes, "opset_version": opset, "verbose": False}
            torch.onnx.export(module, (pixels,), dynamo=True, **options).save(buffer)
    model = onnx.load_model_from_string(buffer.getvalue())
    if metadata is not None:
        helper.set_model_props(model, dict(metadata))
    onnx.save(model, str(path))
    return path


def grid(feature: Any) -> tuple[Any, Any]:
    """Columns x and rows y of the cells, each (h, w)."""
    height, width = feature.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return x.to(torch.float32), y.to(torch.float32)


def values(path: Path, pixels: np.ndarray[Any, Any]) -> list[Any]:
    """A file's outputs for given pixels."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(None, {session.get_inputs()[0].name: pixels})
    return found
