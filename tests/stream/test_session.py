"""Sessions on CUDA find what the same file finds on the CPU."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import av
import pytest

from export.artifact import load, read_spec
from export.parity import check_parity
from export.reference import Found, Pixels
from stream.errors import DeviceUnavailable
from stream.session import open_session


def test_cuda_finds_what_the_cpu_finds(model: Path, bikes: Path) -> None:
    spec = read_spec(load(model), str(model))
    try:
        session = open_session(model, spec, "cuda", 1).onnx
    except DeviceUnavailable as error:
        pytest.skip(f"needs CUDA: {error}")

    def on_cuda(picture: Pixels) -> Found:
        tensors = session.run(["boxes", "scores", "classes"], {"images": picture[None]})
        boxes, scores, classes = (rows[0][tensors[1][0] > 0] for rows in tensors)
        return Found(boxes, scores, classes, cut=0.05)  # lower ones may be cut off by a rounding error

    with av.open(str(bikes)) as container:
        frames = islice(container.decode(video=0), 60, 240, 20)
        pictures = [frame.to_ndarray(format="rgb24") for frame in frames]
    print(check_parity(model, on_cuda, pictures, spec))
