"""Sessions: what was asked for or an error, and the same boxes on every device."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal

import av
import numpy as np
import onnxruntime
import pytest

from export.artifact import load, read_spec
from export.contract import complete
from export.graph import OPSET, parse
from export.parity import check_parity
from export.reference import Found, Pixels
from stream.cut import cut
from stream.device import open_session
from stream.errors import DeviceUnavailable
from stream.gpu_session import GpuSession, _Buffers, _one_of_each


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


def test_a_graph_cut_in_two_gives_what_the_whole_gives(model: Path, bikes: Path) -> None:
    """What runs on a GPU, with its network and its buffers on the CPU: bit for bit, however often it is run."""
    spec = read_spec(load(model), str(model))
    whole = open_session(model, spec, "cpu", 1)
    halves = cut(load(model))
    assert halves is not None
    network, rest = (
        onnxruntime.InferenceSession(half.SerializeToString(), providers=["CPUExecutionProvider"])
        for half in halves
    )
    buffers = {size: _Buffers(network, _one_of_each(halves[0]), spec, size, "cpu") for size in (1, 2, 4)}
    session = GpuSession(ThreadPoolExecutor(1), network, rest, buffers, 4, "cpu", "", 1)
    with av.open(str(bikes)) as container:
        frames = islice(container.decode(video=0), 60, 240, 30)
        pictures = [frame.to_ndarray(format="rgb24") for frame in frames]
    images = np.stack([spec.place(each.shape[1], each.shape[0]).apply(each) for each in pictures])
    for count in (1, 2, 3, 4, 1, 6):
        given = images[:count]
        plain, again = whole.run(given), session.run(given)
        assert plain[1].max() > 0.01
        for want, got in zip(plain, again, strict=True):
            np.testing.assert_array_equal(want, got)


def test_little_passes_from_the_network_to_suppression(model: Path) -> None:
    halves = cut(load(model))
    assert halves is not None
    network, rest = halves
    assert len(network.graph.output) == 2, "candidates' boxes and scores by class"
    assert "NonMaxSuppression" not in {node.op_type for node in network.graph.node}
    assert not rest.graph.initializer
    assert {node.op_type for node in rest.graph.node}.isdisjoint({"Conv", "Resize"})


def test_what_suppresses_nothing_is_not_cut() -> None:
    body = parse(
        """
        body (uint8[B, 32, 32, 3] images) => (float[B, 4, 4] boxes, float[B, 4, 2] class_scores)
        {
            shape = Constant <value_ints = [0, -1, 4]> ()
            pixels = Cast <to = 1> (images)
            rows = Reshape (pixels, shape)
            first = Constant <value_ints = [0, 1, 2, 3]> ()
            boxes = Gather <axis = 1> (rows, first)
            two = Constant <value_ints = [0, 1]> ()
            class_scores = Gather <axis = 2> (boxes, two)
        }
        """,
        OPSET,
    )
    assert cut(complete(body, nms_threshold=None)) is None
    assert cut(complete(body, nms_threshold=0.5)) is not None


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
