"""Megvii's files fill the network, or it is said in a line why not; classes are found again by their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor
from torch.nn import BatchNorm2d

from models.coco import load_coco
from models.coco_names import COCO_NAMES
from models.errors import DataError, RecipeError
from models.megvii_weights import class_rows, detector_of, read_megvii, start_from
from models.megvii_yolox import MegviiYolox, MegviiYoloxConfig, SizeName
from models.recipe import Recipe
from models.start import is_megvii, load_detector
from models.start import start_from as start_from_any
from models.trainer import network
from models.yolox import Yolox, YoloxConfig
from tests.models.published_yolox import as_published


def build(names: tuple[str, ...], size: SizeName = "nano") -> MegviiYolox:
    return MegviiYolox(MegviiYoloxConfig(names, size=size))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """A file of COCO's 80 classes, with all else that Megvii's trainer writes, a NumPy number among it."""
    torch.manual_seed(1)
    model, path = build(COCO_NAMES), tmp_path_factory.mktemp("published") / "yolox_nano.pth"
    optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    return path, as_published(model, path, optimizer=optimiser.state_dict(), best_ap=np.float64(0.258))


def test_a_file_fills_every_tensor(published: tuple[Path, dict[str, Tensor]]) -> None:
    path, content = published
    file = read_megvii(path)
    assert (file.size, file.classes) == ("nano", 80)
    state = detector_of(file, COCO_NAMES, range(80), 416, 416).state_dict()
    assert all(tensor.equal(content[name]) for name, tensor in state.items())


def test_classes_keep_what_was_learned_of_them(published: tuple[Path, dict[str, Tensor]]) -> None:
    path, content = published
    model = build(("dog", "helmet", "person"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    said = start_from(model, path)
    assert (
        said
        == "starts from yolox_nano.pth, a YOLOX-nano of 80 classes; knows dog, person; has to learn helmet"
    )
    for name, tensor in model.state_dict().items():
        if not name.startswith("head.cls_preds."):
            assert tensor.equal(content[name])
            continue
        assert tensor[0].equal(content[name][COCO_NAMES.index("dog")])
        assert tensor[1].equal(before[name][1])
        assert tensor[2].equal(content[name][0])


def test_class_rows_by_name_or_in_order() -> None:
    assert class_rows(("cat", "helmet"), 80) == [15, None]
    assert list(class_rows(COCO_NAMES[::-1], 80)) == list(range(80))[::-1]
    assert class_rows(("helmet", "vest"), 80) == [None, None]
    assert list(class_rows(tuple(map(str, range(80))), 80)) == list(range(80))
    assert list(class_rows(("helmet", "person"), 2)) == [0, 1]
    assert class_rows(("person",), 2) == [None]


def test_other_files_are_refused_by_name(published: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    _, content = published
    path, lateral = tmp_path / "other.pth", "backbone.lateral_conv0.conv.weight"
    small = {**content, "backbone.backbone.stem.conv.conv.weight": torch.zeros(20, 12, 3, 3)}
    for state, message in (
        (
            {name: tensor for name, tensor in content.items() if name != lateral},
            f"tensor '{lateral}' is missing; expected YOLOX-nano of 80 classes",
        ),
        (
            {**content, lateral: torch.zeros(64, 64, 1, 1)},
            r"is \(64, 64, 1, 1\), expected \(128, 256, 1, 1\)",
        ),
        ({**content, "head.extra.weight": torch.zeros(1)}, "it has 'head.extra.weight', which"),
        (small, r"weight' has 20 channels; expected one of 16 \(nano\), 24 \(tiny\), 32 \(s\)"),
        (
            {"fc.weight": torch.zeros(2, 2)},
            r"stem\.conv\.conv\.weight' is missing or one number; expected a YOLOX checkpoint",
        ),
    ):
        torch.save({"model": state}, path)
        with pytest.raises(DataError, match=rf"other\.pth: .*{message}"):
            read_megvii(path)
    for given in (content, {"model": 3}, [1]):
        torch.save(given, path)
        with pytest.raises(DataError, match="it holds something else than tensors by name under 'model'"):
            read_megvii(path)
    with pytest.raises(DataError, match="it is no file of weights; expected a YOLOX checkpoint of Megvii's"):
        read_megvii(Path(__file__))
    with pytest.raises(DataError, match=r"none\.pth: cannot be read \(No such file or directory\)"):
        read_megvii(tmp_path / "none.pth")


def recipe(**model: object) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "mine",
            "names": ["person", "helmet"],
            "data": {"train": [{"annotations": "unused.json", "images": "unused"}]},
            "model": {"family": "yolox", **model},
            "schedule": {"epochs": 2, "frozen_blocks": 1},
            "device": "cpu",
        }
    )


def test_a_recipe_starts_from_a_file(published: tuple[Path, dict[str, Tensor]]) -> None:
    path, content = published
    wanted = recipe(size="nano", start=str(path))
    model = network(wanted)
    assert wanted.model.start is not None
    assert start_from_any(model, wanted.model.start, []) == (
        "starts from yolox_nano.pth, a YOLOX-nano of 80 classes; knows person; has to learn helmet"
    )
    state = model.state_dict()
    assert state["backbone.C3_n4.conv3.bn.weight"].equal(content["backbone.C3_n4.conv3.bn.weight"])
    frozen = {name.split(".")[2] for name, each in model.named_parameters() if not each.requires_grad}
    assert frozen == {"stem", "dark2"}
    with pytest.raises(
        DataError, match="is YOLOX-nano, expected YOLOX-tiny; give another file, or size: nano"
    ):
        start_from_any(network(recipe(size="tiny")), str(path), [])
    other = Yolox(YoloxConfig(("person",)))
    with pytest.raises(RecipeError, match="is a yolox model, the recipe's is a lookout-yolox"):
        start_from_any(other, str(path), [])


@torch.no_grad()
def test_an_onnx_file_of_theirs_teaches_and_starts(yolox_nano: Path, shapes: Path) -> None:
    """In evaluation it computes the same after its norms got the statistics of pictures; then it can be trained."""
    names = ("person", "helmet")
    teacher = load_detector(yolox_nano, 320, 416)
    assert teacher.config.names == COCO_NAMES
    model = network(recipe(size="nano", start=str(yolox_nano)))
    examples = load_coco(shapes, shapes.parent, ("square", "disc"))
    said = start_from_any(model, str(yolox_nano), examples)
    assert (
        said == "starts from yolox_nano.onnx, a YOLOX-nano of 80 classes; knows person; has to learn helmet"
    )
    assert not any(
        module.running_var.std() == 0 for module in model.modules() if isinstance(module, BatchNorm2d)
    )
    torch.manual_seed(0)
    images = torch.randint(0, 256, (1, 320, 416, 3), dtype=torch.uint8)
    (boxes, scores), (wanted_boxes, wanted) = (
        each.eval().decode(each.normalise(images)) for each in (model, teacher)
    )
    assert model.config.names == names
    torch.testing.assert_close(boxes, wanted_boxes, atol=0.05, rtol=1e-3)
    torch.testing.assert_close(scores[..., 0], wanted[..., 0], atol=1e-4, rtol=0)


def test_other_onnx_files_are_refused(yolox_nano: Path, tmp_path: Path) -> None:
    file = onnx.load(str(yolox_nano))
    convolutions = [node for node in file.graph.node if node.op_type == "Conv"]
    assert is_megvii(yolox_nano)
    assert not is_megvii(Path("models/weights/lookout-nano.onnx"))
    path = tmp_path / "other.onnx"
    for message, change in (
        (
            "it has 112 convolutions, YOLOX-nano 113; expected an ONNX file that Megvii",
            convolutions[-1].Clear,
        ),
        ("it has convolutions without a constant kernel and bias", lambda: convolutions[3].input.pop()),
        ("it has no convolutions", lambda: file.graph.ClearField("node")),
    ):
        change()
        onnx.save(file, str(path))
        with pytest.raises(DataError, match=f"other.onnx: {message}"):
            read_megvii(path)
    with pytest.raises(
        RecipeError, match=r"other\.onnx: is a stranger's model, the recipe's is a lookout-yolox"
    ):
        start_from_any(Yolox(YoloxConfig(("person",))), str(path), [])
    path.write_bytes(b"no model")
    with pytest.raises(DataError, match=r"other\.onnx: cannot be read \(DecodeError\)"):
        read_megvii(path)


def test_a_file_is_a_detector(published: tuple[Path, dict[str, Tensor]]) -> None:
    model = load_detector(published[0], 320, 416)
    assert model.config.names == COCO_NAMES
    assert (model.config.input_height, model.config.input_width) == (320, 416)
    assert not model.training
