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
    ahead = figures["lead"]
    assert (set(ahead), ahead["lookout_nano"]["over"]) == ({"lookout_nano"}, "localization")
    assert (
        0
        < ahead["lookout_nano"]["low"]
        <= ahead["lookout_nano"]["difference"]
        <= ahead["lookout_nano"]["high"]
    )
    assert figures["lecture_speed_up"] == {"rcnn": 1, "fast_rcnn": 25, "faster_rcnn": 250}
    assert figures["proposing_s"] == {"localization": 0, "lookout_nano": 0}
    judged = evaluate(
        Detector(folder / "best.onnx", "cpu"), few, data / "images", lineage.SCORE_FLOOR, "coco", None
    )
    assert figures["AP50"]["localization"] == pytest.approx(judged.AP50, abs=1e-4)
    assert figures["AP50"]["lookout_nano"] > 0.3
    assert f"localization  {ahead['lookout_nano']['low']:+.3f} to " in said[-1]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")

    published = tmp_path / "published.json"
    columns = {"seconds_per_image": 2.0, "proposing_s": 0.3, "AP50": 0.8, "AP": 0.4}
    published.write_text(json.dumps({name: {"rcnn": of, "localization": of} for name, of in columns.items()}))
    beside = lineage.run(
        tmp_path, few, data / "images", plot=tmp_path / "both.png", beside=published, say=said.append
    )
    assert beside["earlier"] == ["rcnn"]
    assert beside["lead"] == figures["lead"], "an earlier run has figures, but not what each picture gave"
    assert list(beside["AP50"]) == ["localization", "rcnn", "lookout_nano"]
    assert beside["AP50"]["localization"] == figures["AP50"]["localization"], "what is here is measured here"
    assert (beside["AP50"]["rcnn"], beside["AP"]["rcnn"], beside["proposing_s"]["rcnn"]) == (0.8, 0.4, 0.3)
    assert beside["speed_up"]["localization"] == pytest.approx(
        2.0 / beside["seconds_per_image"]["localization"], rel=0.01
    )
    assert "rcnn (earlier)" in said[-1]
    assert (tmp_path / "both.png").read_bytes() != (tmp_path / "plot.png").read_bytes()


@pytest.mark.parametrize("text", ["[]", "{", "{}", '{"seconds_per_image": {"rcnn": 1}}'])
def test_an_earlier_run_is_what_it_printed(tmp_path: Path, text: str) -> None:
    (tmp_path / "hog").mkdir()
    (tmp_path / "hog" / "best.pt").touch()
    (tmp_path / "earlier.json").write_text(text)
    with pytest.raises(UsageError, match="expected what lookout bench lineage --json prints"):
        lineage.run(tmp_path, tmp_path / "a.json", tmp_path, beside=tmp_path / "earlier.json")
    with pytest.raises(UsageError, match="cannot be read"):
        lineage.run(tmp_path, tmp_path / "a.json", tmp_path, beside=tmp_path / "none.json")


def test_without_checkpoints_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="train them first"):
        lineage.run(tmp_path, tmp_path / "a.json", tmp_path)
