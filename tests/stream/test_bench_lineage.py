"""``lookout bench lineage`` on a checkpoint: what it says is what ``lookout eval`` says of the exported file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stream.bench import lineage
from stream.detector import Detector
from stream.errors import UsageError
from stream.evaluate import evaluate

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("matplotlib", reason="needs the plots extra")

pytestmark = pytest.mark.slow

PICTURES = 6


def test_checkpoints_are_compared(shared: Path, tmp_path: Path) -> None:
    from models.checkpoint import save_checkpoint
    from models.lineage.localization import Localization, LocalizationConfig

    data = shared / "data" / "pedestrians"
    whole = json.loads((data / "instances_val.json").read_text())
    whole["images"] = whole["images"][:PICTURES]
    kept = {image["id"] for image in whole["images"]}
    whole["annotations"] = [each for each in whole["annotations"] if each["image_id"] in kept]
    few = tmp_path / "few.json"
    few.write_text(json.dumps(whole))
    folder = tmp_path / "localization"
    folder.mkdir()
    torch.manual_seed(0)
    config = LocalizationConfig(("person",), input_height=128, input_width=160, hidden=16)
    save_checkpoint(folder / "best.pt", Localization(config), 0, None)
    said: list[str] = []

    figures = lineage.run(tmp_path, few, data / "images", plot=tmp_path / "plot.png", say=said.append)

    assert set(figures["AP50"]) == {"localization", "lookout_nano"}
    assert "rcnn" in figures["missing"]
    assert figures["speed_up"] == {}
    assert figures["lecture_speed_up"] == {"rcnn": 1, "fast_rcnn": 25, "faster_rcnn": 250}
    assert figures["proposing_s"] == {"localization": 0, "lookout_nano": 0}
    judged = evaluate(
        Detector(folder / "best.onnx", "cpu"), few, data / "images", lineage.SCORE_FLOOR, "coco", None
    )
    assert figures["AP50"]["localization"] == pytest.approx(judged.AP50, abs=1e-4)
    assert figures["AP50"]["lookout_nano"] > 0.3
    assert "lookout_nano" in said[-1]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_without_checkpoints_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="train them first"):
        lineage.run(tmp_path, tmp_path / "a.json", tmp_path)
