"""Transformers' own DETRs with tiny configurations and random weights, exported as their users would."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

HEIGHT, WIDTH = 96, 128
QUERIES = 20

_SMALL: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "num_queries": QUERIES,
}


class _Heads(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.model(*inputs)
        return found.logits, found.pred_boxes


class _Deployed(_Heads):
    """RT-DETR's postprocessing: of all (query, class) pairs the best, boxes in pixels of a given size."""

    def forward(self, *inputs: torch.Tensor) -> Any:
        pictures, sizes = inputs
        logits, boxes = super().forward(pictures)
        centres, sides = boxes.split(2, dim=-1)
        corners = torch.cat([centres - sides / 2, centres + sides / 2], -1) * sizes.repeat(1, 2)[:, None]
        scores, best = logits.sigmoid().flatten(1).topk(QUERIES)
        rows = best // logits.shape[2]
        labels = best - rows * logits.shape[2]
        return labels, corners.gather(1, rows[..., None].repeat(1, 1, 4)), scores


def exported(
    path: Path,
    model: Any,
    inputs: dict[str, torch.Tensor],
    outputs: list[str],
    *,
    box_spread: float = 0.3,
    any_batch: bool = False,
    newer: bool = False,
) -> Path:
    """The ONNX file of a model: class scores are spread, so that some of them are high, and so are boxes.

    By torch's older exporter, which is quick; by its newer one for any batch, and where the older one cannot.
    """
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "class" in name or "enc_score" in name:
                weights.copy_(torch.randn(weights.shape, generator=generator) * 0.25)
            elif "bbox" in name:  # queries that find the same box would hide which is which
                weights.copy_(torch.randn(weights.shape, generator=generator) * box_spread)
    model.eval()
    names: dict[str, Any] = {"input_names": list(inputs), "output_names": outputs}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if newer or any_batch:
            shapes = ({0: torch.export.Dim.DYNAMIC},) if any_batch else None
            options = {**names, "dynamic_shapes": shapes, "verbose": False}
            torch.onnx.export(model, tuple(inputs.values()), dynamo=True, **options).save(buffer)
        else:
            options = {**names, "opset_version": 17}
            torch.onnx.export(model, tuple(inputs.values()), buffer, dynamo=False, **options)
    onnx.save(onnx.load_model_from_string(buffer.getvalue()), str(path))
    return path


class Plain(torch.nn.Module):
    """DETR in a few lines: a convolution, queries that attend to it, an MLP for boxes and one for classes."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = torch.nn.Conv2d(3, 32, 16, 16)
        self.queries = torch.nn.Parameter(torch.randn(1, QUERIES, 32))
        self.attention = torch.nn.MultiheadAttention(32, 2, batch_first=True)
        self.class_head = torch.nn.Linear(32, columns)
        self.bbox_head = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.backbone(pixels).flatten(2).transpose(1, 2)
        queries = self.queries.expand(len(pixels), -1, -1)
        found = queries + self.attention(queries, features, features)[0]
        return self.class_head(found), self.bbox_head(found).sigmoid()


def plain(
    path: Path, columns: int, outputs: tuple[str, str] = ("logits", "pred_boxes"), *, any_batch: bool = False
) -> Path:
    """``Plain`` for one picture, or for any number of them at once."""
    inputs = {"pixels": torch.rand(2 if any_batch else 1, 3, HEIGHT, WIDTH)}
    return exported(path, Plain(columns), inputs, list(outputs), any_batch=any_batch)


def transformers() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers", reason="Transformers is not installed")


def picture(height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    return torch.rand(1, 3, height, width)


def detr(path: Path) -> Path:
    """DETR for COCO: 91 + 1 columns, a mask of the pixels, channels that are open by name."""
    module = transformers()
    torch.manual_seed(0)
    backbone = module.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage4"],
    )
    config = module.DetrConfig(
        backbone_config=backbone,
        backbone=None,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        num_labels=91,
        **_SMALL,
    )
    inputs = {"pixel_values": picture(), "pixel_mask": torch.ones(1, 64, 64, dtype=torch.int64)}
    model = _Heads(module.DetrForObjectDetection(config))
    exported(path, model, inputs, ["logits", "pred_boxes"])
    proto = onnx.load(str(path))
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "num_channels"
    onnx.save(proto, str(path))
    return path


def deformable(path: Path) -> Path:
    """Deformable DETR for COCO: 91 columns."""
    module = transformers()
    torch.manual_seed(0)
    config = module.DeformableDetrConfig(
        backbone_config=_backbone(module, "ResNetConfig", ["stage3", "stage4"]),
        backbone=None,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        num_labels=91,
        num_feature_levels=2,
        **_SMALL,
    )
    model = _Heads(module.DeformableDetrForObjectDetection(config))
    return exported(path, model, {"pixel_values": picture()}, ["logits", "pred_boxes"], newer=True)


def rf_detr(path: Path) -> Path:
    """RF-DETR with three columns, square, under the names of its own exporter, boxes first."""
    module = transformers()
    torch.manual_seed(0)
    backbone = module.models.rf_detr.configuration_rf_detr.RfDetrDinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=96,
        patch_size=16,
        num_windows=2,
        out_indices=[1, 2],
        window_block_indexes=[0],
    )
    config = module.RfDetrConfig(
        backbone_config=backbone,
        decoder_cross_attention_heads=2,
        decoder_self_attention_heads=2,
        group_detr=1,
        c2f_num_blocks=1,
        num_labels=3,
        d_model=32,
        decoder_layers=1,
        decoder_ffn_dim=32,
        num_queries=QUERIES,
    )
    model = _Heads(module.RfDetrForObjectDetection(config))
    exported(path, model, {"input": picture(96, 96)}, ["labels", "dets"], box_spread=0.05, newer=True)
    proto = onnx.load(str(path))
    proto.graph.output.reverse()
    onnx.save(proto, str(path))
    return path


def rt_detr(path: Path) -> Path:
    """RT-DETR with raw heads."""
    model = _Heads(_rt_detr())
    return exported(path, model, {"pixel_values": picture()}, ["logits", "pred_boxes"])


def rt_detr_deployed(path: Path) -> Path:
    """RT-DETR with its postprocessing, and the picture's size as its second input."""
    inputs = {"images": picture(), "orig_target_sizes": torch.tensor([[640, 640]])}
    model = _Deployed(_rt_detr())
    return exported(path, model, inputs, ["labels", "boxes", "scores"])


def _rt_detr() -> Any:
    module = transformers()
    torch.manual_seed(0)
    config = module.RTDetrConfig(
        backbone_config=_backbone(module, "RTDetrResNetConfig", ["stage2", "stage3", "stage4"]),
        encoder_hidden_dim=32,
        encoder_in_channels=[8, 16, 16],
        decoder_in_channels=[32, 32, 32],
        anchor_image_size=None,
        num_labels=80,
        **{**_SMALL, "decoder_layers": 1},
    )
    return module.RTDetrForObjectDetection(config)


def _backbone(module: Any, kind: str, read: list[str]) -> Any:
    return getattr(module, kind)(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=read,
    )
