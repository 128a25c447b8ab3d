"""What it costs on a CPU that pre- and postprocessing are in the graph: a stranger's file, bare and adapted.

Bare is the original's ``session.run`` on a float tensor that is ready; adapted is the contract file's on bytes,
which moves, casts and normalises the pixels, decodes the boxes and suppresses. One picture, one thread, in turn.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from export.artifact import load, read_spec
from export.convert import ensure_contract
from export.parity import placed
from export.pictures import parity_pictures
from export.pixels import PixelRule, plain
from export.proposal import is_contract
from export.signature import read_signature, side_values
from export.speed import Feeds, on_one_core, run_seconds
from stream.errors import UsageError


def run(model: str, seconds: float = 20.0) -> dict[str, Any]:
    """Measure a stranger's file.

    Args:
        model: path of an .onnx file that ``lookout export`` can adapt.
        seconds: how long to measure.

    Returns:
        ``bare_ms``, ``adapted_ms``: medians; ``added_ms``: the median difference of runs side by side.

    Raises:
        UsageError: the file is a contract file already: there is no bare one to compare with.
    """
    path = Path(model)
    original = load(path)
    if is_contract(original):
        raise UsageError(f"{model}: already is a lookout model; give a stranger's file: --model FILE.onnx")
    adapted = ensure_contract(path, lambda line: None)
    spec = read_spec(load(adapted), str(adapted))
    signature = read_signature(path, original, (spec.input_height, spec.input_width))
    sides = side_values(signature.others, signature.height, signature.width)
    pictures = [placed(picture, spec) for picture in parity_pictures(None)]
    bare: list[Feeds] = [
        {
            signature.picture.name: plain(PixelRule(), picture, signature.layout, signature.picture.kind),
            **sides,
        }
        for picture in pictures
    ]
    contract: list[Feeds] = [{"images": picture[None]} for picture in pictures]
    before, after = run_seconds([on_one_core(path), on_one_core(adapted)], [bare, contract], seconds)
    added = np.array(after) - np.array(before)
    return {
        "model": path.stem,
        "input": f"{spec.input_width}x{spec.input_height}",
        "bare_ms": round(1000 * median(before), 2),
        "adapted_ms": round(1000 * median(after), 2),
        "added_ms": round(1000 * float(np.median(added)), 2),
        "runs_each": len(before),
    }
