"""``lookout export yolox_nano.pth``: Megvii's own file becomes a contract file, of COCO's classes or some of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from export.artifact import ArtifactError, load, read_spec
from export.convert import ensure_contract, export_model
from export.graph import static_shape
from export.parity import placed, run_file
from export.pictures import demo_pictures
from export.reference import iou
from models.coco_names import COCO_NAMES
from stream.cli import main

pytest.importorskip("torch", reason="needs the train extra")

NAMES = ("bicycle", "person", "car")


@pytest.fixture(scope="module")
def published(yolox_nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``yolox_nano.onnx`` as a .pth file."""
    from tests.models.published_yolox import as_published, nano_from_onnx

    path = tmp_path_factory.mktemp("megvii") / "yolox_nano.pth"
    as_published(nano_from_onnx(yolox_nano), path)
    return path


@pytest.mark.slow
@pytest.mark.timeout(300)  # torch exports hundreds of nodes, slowly where other tests run beside this
def test_it_finds_what_megviis_onnx_file_finds(
    published: Path, yolox_nano: Path, tmp_path: Path, log_kept: None
) -> None:
    out, adapted = tmp_path / "out.onnx", tmp_path / "adapted.onnx"
    assert main(["export", str(published), "--names", ",".join(NAMES), "--out", str(out)]) == 0
    export_model(yolox_nano, adapted, say=print)
    model = load(out)
    spec = read_spec(model, "out")
    print(spec.parity)
    assert (spec.family, spec.names, spec.nms_threshold) == ("yolox", NAMES, 0.65)
    assert spec.source_sha256 == hashlib.sha256(published.read_bytes()).hexdigest()
    assert static_shape(model.graph.input[0]) == (-1, 416, 416, 3)
    assert spec.parity["detections"] > 100
    assert spec.parity["max_box_difference_px"] <= 0.01
    assert spec.parity["max_score_difference"] <= 1e-4
    numbers = np.array([COCO_NAMES.index(name) for name in NAMES])
    images = np.stack([placed(picture, spec) for picture in demo_pictures()])
    compared = 0
    for mine, theirs in zip(run_file(out, images, 1), run_file(adapted, images, 1), strict=True):
        same = (iou(theirs.boxes, mine.boxes) > 0.99) & (theirs.classes[:, None] == numbers[mine.classes])
        same &= np.abs(theirs.scores[:, None] - mine.scores) < 1e-3
        wanted = np.isin(theirs.classes, numbers) & (theirs.scores > 0.05)
        assert same[wanted].any(1).all()
        assert same[:, mine.scores > 0.05].any(0).all()
        compared += int(wanted.sum())
    print(f"{compared} detections are the file's")
    assert compared > 50


def test_what_does_not_fit_is_said(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], log_kept: None
) -> None:
    from models.checkpoint import save_checkpoint
    from models.megvii_yolox import MegviiYolox, MegviiYoloxConfig

    garbage, ours = tmp_path / "garbage.pth", tmp_path / "ours.pth"
    save_checkpoint(ours, MegviiYolox(MegviiYoloxConfig(NAMES, size="nano")), 1, None)
    garbage.write_bytes(b"<html>not found</html>")
    for what, options, message in (
        (published, ["--names", "helmet,vest"], "--names gives 2 names, the model has 80 classes"),
        (
            published,
            ["--color", "rgb"],
            "is a PyTorch file; of such a YOLOX --names and --input-size can be said",
        ),
        (published, ["--input-size", "416x300"], "--input-size 416x300: expected multiples of 32"),
        (ours, ["--ranks", "2,2"], "ours.pth: is a yolox; --ranks goes with a Fast R-CNN alone"),
        (garbage, [], "garbage.pth: it is no file of weights; expected a YOLOX checkpoint of Megvii's"),
        (tmp_path / "none.pth", [], "none.pth: no such model"),
    ):
        assert main(["export", str(what), "--out", str(tmp_path / "out.onnx"), *options]) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(
        ArtifactError, match=r"is a checkpoint; export it first: lookout export .*yolox_nano\.pth"
    ):
        ensure_contract(published, print)
    assert set(tmp_path.iterdir()) == {garbage, ours}
