"""The operators of ``models`` in ONNX, for any number of pictures."""

from __future__ import annotations

import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")


class Regions(torch.nn.Module):
    """The best boxes of each picture, and what lies there."""

    def forward(
        self, features: torch.Tensor, boxes: torch.Tensor, scores: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        from models.lineage.roi import regions_of, roi_align, roi_pool
        from models.lineage.suppression import suppress

        kept = suppress(boxes, scores, 0.6, 9)
        flat, pictures = regions_of(boxes)
        return (
            kept,
            roi_pool(features, flat, pictures, 7, 1 / 16),
            roi_align(features, flat, pictures, 7, 1 / 16),
            roi_align(features, flat, pictures, 3, 1 / 16, samples=1, aligned=False),
        )


def inputs_of(batch: int) -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(batch)
    corners = torch.rand((batch, 40, 2), generator=random) * 60
    boxes = torch.cat([corners, corners + 20 + 60 * torch.rand((batch, 40, 2), generator=random)], 2)
    return torch.randn((batch, 3, 9, 11), generator=random), boxes, torch.rand((batch, 40), generator=random)


def test_operators_become_onnx_for_any_batch() -> None:
    from export.torch_export import _quiet
    from export.torch_ops import translations

    batch = torch.export.Dim.DYNAMIC
    with _quiet(), torch.inference_mode():
        program = torch.onnx.export(
            Regions().eval(),
            inputs_of(2),
            dynamic_shapes=[{0: batch}, {0: batch}, {0: batch}],
            opset_version=18,
            custom_translation_table=translations(),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    operators = [node.op_type for node in graph.graph.node]
    assert operators.count("RoiAlign") == 2
    assert operators.count("NonMaxSuppression") == 1
    assert "MaxRoiPool" not in operators, "onnxruntime has no CUDA kernel of it"
    assert {node.domain for node in graph.graph.node} == {""}
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for count in (1, 2, 5):
        inputs = inputs_of(count)
        found = session.run(
            None, {slot.name: value.numpy() for slot, value in zip(session.get_inputs(), inputs, strict=True)}
        )
        kept, pooled, aligned, small = Regions()(*inputs)
        assert found[0].tolist() == kept.tolist()
        assert torch.equal(torch.from_numpy(found[1]), pooled)
        torch.testing.assert_close(torch.from_numpy(found[2]), aligned, atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.from_numpy(found[3]), small, atol=1e-5, rtol=0)
