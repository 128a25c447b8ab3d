"""Starting from other weights: the embedded file's, proven by what it finds, and a checkpoint's."""

from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from models.augment import letterboxed
from models.checkpoint import load_checkpoint, save_checkpoint
from models.coco import Example, load_coco
from models.detector import Detector
from models.errors import RecipeError
from models.megvii_yolox import MegviiYolox, MegviiYoloxConfig
from models.postprocess import detections
from models.start import adopt, restore_statistics, start_from, weights_of_onnx
from models.train import train
from models.yolox import Yolox, YoloxConfig
from tests.models.conftest import draw_shapes

NANO = Path("models/weights/lookout-nano.onnx").resolve()
NAMES = ("person", "bicycle", "car", "motorcycle", "bus", "truck", "dog", "cat")
SMALL = (96, 128)


def _nano(names: tuple[str, ...] = NAMES, size: tuple[int, int] = SMALL) -> MegviiYolox:
    """The embedded file's architecture."""
    return MegviiYolox(MegviiYoloxConfig(names, *size, "nano")).eval()


@pytest.fixture(scope="module")
def street(bikes: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    """Four frames of a real clip, as a person would have annotated one box in each."""
    folder = tmp_path_factory.mktemp("street")
    with av.open(str(bikes)) as clip:
        frames = [frame.to_ndarray(format="bgr24") for frame in clip.decode(video=0)][::64]
    for index, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{index}.png"), frame)
    images = [
        {"id": index, "file_name": f"{index}.png", "width": 640, "height": 272}
        for index in range(len(frames))
    ]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [9, 9, 50, 99]} for n in range(len(frames))]
    file = folder / "boxes.json"
    file.write_text(
        json.dumps(
            {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "person"}]},
        )
    )
    return load_coco(file, folder, ("person",))


def _decoded(model: MegviiYolox, images: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return model.decode(model.normalise(images))


def _images(examples: list[Example], size: tuple[int, int]) -> Tensor:
    return torch.stack([torch.from_numpy(letterboxed(example, *size).image) for example in examples])


def test_the_embedded_file_becomes_a_network_again(street: list[Example]) -> None:
    """In evaluation the same as the file, before its statistics are back and after."""
    model = _nano(size=(352, 480))
    adopt(model, *weights_of_onnx(NANO, model), "lookout-nano")
    images = _images(street, (352, 480))
    session = onnxruntime.InferenceSession(str(NANO), providers=["CPUExecutionProvider"])
    boxes, scores, classes = session.run(["boxes", "scores", "classes"], {"images": images.numpy()})
    decoded = _decoded(model, images)
    compared, worst = 0, 0.0
    for row, (own_boxes, own_scores) in enumerate(zip(*decoded, strict=True)):
        found = detections(own_boxes, own_scores, 0.01, model.nms_threshold)
        count = len(found[1])
        assert count == int((scores[row] > 0.01).sum())
        assert found[2].tolist() == classes[row, :count].tolist()
        assert np.abs(found[0].numpy() - boxes[row, :count]).max(initial=0) < 0.02
        worst = max(worst, float(np.abs(found[1].numpy() - scores[row, :count]).max(initial=0)))
        compared += count
    print(f"{compared} detections, largest difference of scores {worst}")
    assert compared >= 10
    assert worst < 1e-5
    restore_statistics(model, street)
    boxes_apart, scores_apart = (
        float((after - before).abs().max())
        for before, after in zip(decoded, _decoded(model, images), strict=True)
    )
    print(f"with statistics, boxes within {boxes_apart} px, scores within {scores_apart}")
    assert boxes_apart < 0.02
    assert scores_apart < 1e-5
    deviations = [norm.running_var for norm in model.modules() if isinstance(norm, nn.BatchNorm2d)]
    assert len(deviations) == 104
    assert all(each is not None and float(each.std()) > 0 for each in deviations)


def test_with_statistics_it_computes_the_same_in_training(street: list[Example]) -> None:
    """On the pictures that they are of; without them, something else."""
    alike = []
    for statistics in (False, True):
        model = _nano()
        adopt(model, *weights_of_onnx(NANO, model), "lookout-nano")
        if statistics:
            restore_statistics(model, street[:2])
        images = _images(street[:2], SMALL)
        both = [_decoded(model, images)[1].flatten(), _decoded(model.train(), images)[1].flatten()]
        alike.append(float(torch.corrcoef(torch.stack(both))[0, 1]))
    print(f"correlation of scores in training with those in evaluation: {alike}")
    assert alike[0] < 0.5
    assert alike[1] > 0.99


def test_classes_keep_what_they_know_by_name(street: list[Example], tmp_path: Path) -> None:
    whole = _nano()
    start_from(whole, "lookout-nano", street)
    save_checkpoint(tmp_path / "nano.pt", whole, 1, None)
    images = _images(street, SMALL)
    for start in (str(NANO), str(tmp_path / "nano.pt")):
        few = _nano(("cat", "tram", "person"))
        random = few.head.cls_preds[0].weight[1].clone()  # type: ignore[union-attr, index]
        assert start_from(few, start, street) == f"starting from {start}; anew: tram"
        assert torch.equal(few.head.cls_preds[0].weight[1], random)  # type: ignore[union-attr, index]
        expected, found = _decoded(whole, images)[1], _decoded(few, images)[1]
        worst = float((expected[..., [7, 0]] - found[..., [0, 2]]).abs().max())
        print(f"{Path(start).name}: largest difference {worst}")
        assert worst < 1e-4


def test_what_does_not_fit_is_told(street: list[Example], tmp_path: Path) -> None:
    file = onnx.load(str(NANO))
    for name, key, value in (("other", "family", "yolo-v1"), ("half", "precision", "fp16")):
        changed = onnx.ModelProto.FromString(file.SerializeToString())
        kept = {entry.key: entry.value for entry in changed.metadata_props} | {f"lookout.{key}": value}
        onnx.helper.set_model_props(changed, kept)
        onnx.save(changed, str(tmp_path / f"{name}.onnx"))
    (tmp_path / "none.onnx").write_text("nothing")
    save_checkpoint(tmp_path / "narrow.pt", Yolox(YoloxConfig(NAMES, *SMALL, width=16)), 1, None)
    nano, wide = _nano(), Yolox(YoloxConfig(NAMES, *SMALL, width=24))
    tiny = MegviiYolox(MegviiYoloxConfig(NAMES, *SMALL, "tiny"))
    models: tuple[tuple[str, Detector, str], ...] = (
        ("other.onnx", nano, "is a yolo-v1 model, the recipe's is a yolox"),
        ("half.onnx", nano, "is in fp16"),
        ("none.onnx", nano, "cannot be read .* expected an .onnx file that lookout export made"),
        (
            "lookout-mini",
            nano,
            r"no such file; expected a checkpoint \(\.pt\), an \.onnx .* or one of lookout-nano",
        ),
        (str(NANO), wide, "is a yolox model, the recipe's is a lookout-yolox"),
        (str(NANO), tiny, r"dark2\.0\..* is in one of the networks alone"),
        ("narrow.pt", wide, r"\(16, 40, 1, 1\) there and \(24, 40, 1, 1\) here"),
    )
    for start, model, message in models:
        with pytest.raises(RecipeError, match=message):
            start_from(model, str(tmp_path / start), street)


@pytest.mark.slow
def test_a_recipe_starts_where_another_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A rate at which nothing is learned leaves the weights as they were."""
    shapes = draw_shapes(tmp_path / "shapes", 8)
    recipe = tmp_path / "recipe.yaml"

    def write(name: str, more: str, rate: str) -> None:
        recipe.write_text(
            f"{{name: {name}, names: [square, disc], runs: {tmp_path}, workers: 0, device: cpu, precision: float32,\n"
            f"model: {{input_height: 64, input_width: 96, backbone_blocks: 12, width: 16{more}}},\n"
            f"data: {{train: [{{annotations: {shapes}, images: {shapes.parent}}}]}},\n"
            f"schedule: {{epochs: 1, batch: 4, learning_rate: {rate}}}}}"
        )

    write("first", "", "0.01")
    first, _ = load_checkpoint(train(recipe))
    write("second", f", start: {tmp_path / 'first' / 'best.pt'}", "0.0000000001")
    second, _ = load_checkpoint(train(recipe))
    assert "starting from" in capsys.readouterr().out
    for (name, one), other in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6), name
