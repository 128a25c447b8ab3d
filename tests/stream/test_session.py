"""Sessions: what was asked for or an error, and the same boxes on every device."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest

from export.artifact import load, read_spec
from export.parity import check_parity
from export.reference import Found, Pixels
from stream.errors import DeviceUnavailable
from stream.session import _Binding, open_session


def test_cuda_finds_what_the_cpu_finds(model: Path, bikes: Path) -> None:
    spec = read_spec(load(model), str(model))
    try:
        session = open_session(model, spec, "cuda", 1)
    except DeviceUnavailable as error:
        pytest.skip(f"needs CUDA: {error}")

    def on_cuda(picture: Pixels) -> Found:
        tensors = session.run(picture[None])
        boxes, scores, classes = (rows[0][tensors[1][0] > 0] for rows in tensors)
        return Found(boxes, scores, classes, cut=0.05)  # lower ones may be cut off by a rounding error

    with av.open(str(bikes)) as container:
        frames = islice(container.decode(video=0), 60, 240, 20)
        pictures = [frame.to_ndarray(format="rgb24") for frame in frames]
    print(check_parity(model, on_cuda, pictures, spec))


def test_bound_buffers_give_what_a_plain_run_gives(model: Path, bikes: Path) -> None:
    """What runs on a GPU, with its buffers on the CPU: bit for bit, however often they are used again."""
    spec = read_spec(load(model), str(model))
    session = open_session(model, spec, "cpu", 1)
    with av.open(str(bikes)) as container:
        frames = islice(container.decode(video=0), 60, 240, 30)
        pictures = [frame.to_ndarray(format="rgb24") for frame in frames]
    images = np.stack([spec.place(each.shape[1], each.shape[0]).apply(each) for each in pictures])
    bound = _Binding(session.onnx, np.zeros_like(images[:2]), "cpu")
    for first in range(0, len(images) - 1, 2):
        plain, again = session.run(images[first : first + 2]), bound.run(images[first : first + 2])
        assert plain[1].max() > 0.01
        for want, got in zip(plain, again, strict=True):
            np.testing.assert_array_equal(want, got)


@pytest.mark.parametrize("device", ["tensorrt", "openvino"])
def test_a_device_that_is_not_here_is_refused_with_the_remedy(
    model: Path, device: Literal["tensorrt", "openvino"], capfd: pytest.CaptureFixture[str]
) -> None:
    spec = read_spec(load(model), str(model))
    try:
        open_session(model, spec, device, 1)
    except DeviceUnavailable as error:
        refusal = str(error)
    else:
        pytest.skip(f"{device} works here")
    assert f"device: {device} was asked for, but" in refusal
    assert "pip install" in refusal
    assert "\n" not in refusal
    assert capfd.readouterr() == ("", "")
