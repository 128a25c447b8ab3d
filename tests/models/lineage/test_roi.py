from __future__ import annotations

import onnx
import onnxruntime
import pytest
import torch
from onnx import parser
from torch import Tensor

from models.lineage.roi import regions_of, roi_align, roi_pool

STRIDE = 16


def onnx_operator(call: str, features: Tensor, boxes: Tensor, pictures: Tensor) -> Tensor:
    """What onnxruntime's own operator gives; ``call`` takes f, r (4 columns), p and r5 (5, MaxRoiPool's)."""
    text = f"""<ir_version: 10, opset_import: ["": 18]>
        g (float[B, C, H, W] f, float[R, 4] r, int64[R] p, float[R, 5] r5) => (float[R, C, S, S] y)
        {{ y = {call} }}"""
    model = parser.parse_model(text)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = {
        "f": features,
        "r": boxes,
        "p": pictures,
        "r5": torch.cat([pictures[:, None].float(), boxes], 1),
    }
    return torch.from_numpy(session.run(None, {name: value.numpy() for name, value in inputs.items()})[0])


def regions(width: int, height: int, count: int) -> Tensor:
    """Random boxes in a picture, some of them narrower than a cell, and the picture itself."""
    random = torch.Generator().manual_seed(0)
    corners = torch.rand((count, 2, 2), generator=random) * torch.tensor([width, height])
    corners[: count // 4, 1] = corners[: count // 4, 0] + 3
    boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
    boxes[:, 0::2] = boxes[:, 0::2].clamp(0, width)
    boxes[:, 1::2] = boxes[:, 1::2].clamp(0, height)
    return torch.cat([boxes, torch.tensor([[0.0, 0.0, width, height], [width - 2.0, 0.0, width, 9.0]])])


@pytest.mark.parametrize("size", [1, 2, 7, 14])
@pytest.mark.parametrize(("height", "width"), [(20, 26), (3, 38), (1, 1)])
def test_pooling_is_max_roi_pool(height: int, width: int, size: int) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 5, height, width)
    boxes = regions(width * STRIDE, height * STRIDE, 60)
    pictures = torch.arange(len(boxes)) % 2
    mine = roi_pool(features, boxes, pictures, size, 1 / STRIDE)
    call = f"MaxRoiPool <pooled_shape = [{size}, {size}], spatial_scale = {1 / STRIDE}> (f, r5)"
    assert torch.equal(mine, onnx_operator(call, features, boxes, pictures))


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(("size", "samples"), [(7, 2), (14, 1), (2, 3)])
def test_aligning_is_roi_align(size: int, samples: int, aligned: bool) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 5, 20, 26)
    boxes = torch.cat([regions(26 * STRIDE, 20 * STRIDE, 60), torch.tensor([[-60.0, -40.0, 500.0, 900.0]])])
    pictures = torch.arange(len(boxes)) % 2
    mine = roi_align(features, boxes, pictures, size, 1 / STRIDE, samples, aligned)
    mode = "half_pixel" if aligned else "output_half_pixel"
    call = f"""RoiAlign <coordinate_transformation_mode = "{mode}", output_height = {size}, output_width = {size},
        sampling_ratio = {samples}, spatial_scale = {1 / STRIDE}> (f, r, p)"""
    theirs = onnx_operator(call, features, boxes, pictures)
    print("max difference", (mine - theirs).abs().max().item())
    torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=0)


def test_bins_by_hand() -> None:
    """Cells 1 to 5 of a row 0, 1, 2, ... in two bins: floor(0), ceil(2.5) and floor(2.5), ceil(5) from cell 1."""
    features = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 8, 8).contiguous()
    found = roi_pool(
        features, torch.tensor([[1.0, 1.0, 5.0, 5.0]]), torch.zeros(1, dtype=torch.int64), 2, 1.0
    )
    assert found[0, 0].tolist() == [[3.0, 5.0], [3.0, 5.0]]
    # Aligned, the box's bins are 1..3 and 3..5; their centres 2 and 4 lie half a cell before cells' numbers.
    found = roi_align(
        features, torch.tensor([[1.0, 1.0, 5.0, 5.0]]), torch.zeros(1, dtype=torch.int64), 2, 1.0
    )
    assert found[0, 0].tolist() == [[1.5, 3.5], [1.5, 3.5]]


def test_gradients_go_to_the_cells_that_counted() -> None:
    features = torch.arange(16.0).view(1, 1, 4, 4).requires_grad_()
    picture = torch.zeros(1, dtype=torch.int64)
    roi_pool(features, torch.tensor([[0.0, 0.0, 3.0, 3.0]]), picture, 2, 1.0).sum().backward()
    expected = torch.zeros(4, 4)
    expected[1::2, 1::2] = 1
    assert features.grad is not None
    assert torch.equal(features.grad[0, 0], expected)
    features.grad = None
    roi_align(features, torch.tensor([[0.0, 0.0, 4.0, 4.0]]), picture, 2, 1.0).sum().backward()
    assert torch.allclose(features.grad[0, 0], torch.full((4, 4), 0.25))  # every sample is a cell's centre


def test_no_region_is_no_row() -> None:
    features, none = torch.zeros(1, 3, 4, 4), torch.zeros(0, 4)
    pictures = torch.zeros(0, dtype=torch.int64)
    assert roi_pool(features, none, pictures, 7, 1.0).shape == (0, 3, 7, 7)
    assert roi_align(features, none, pictures, 7, 1.0).shape == (0, 3, 7, 7)


def test_regions_know_their_picture() -> None:
    boxes, pictures = regions_of(torch.arange(24.0).view(2, 3, 4))
    assert boxes[3].tolist() == [12, 13, 14, 15]
    assert pictures.tolist() == [0, 0, 0, 1, 1, 1]
