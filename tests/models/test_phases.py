"""One recipe, several trainings: each begins with what the one before ended with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.checkpoint import read_checkpoint
from models.errors import RecipeError
from models.recipe import load_phases, load_recipe
from models.train import train


def _recipe(folder: Path, shapes: Path, phases: str) -> Path:
    path = folder / "shapes.yaml"
    path.write_text(f"""
name: shapes
names: [square, disc]
model: {{input_height: 64, input_width: 96, backbone_blocks: 12, width: 16, pretrained: false}}
data: {{train: [{{annotations: {shapes}, images: {shapes.parent}}}]}}
augmentation: {{mosaic: 0, crop: 0.3}}
schedule: {{epochs: 1, batch: 4, learning_rate: 0.001, warmup_epochs: 0.5}}
device: cpu
precision: float32
workers: 0
threads: 1
runs: {folder / "runs"}
phases: {phases}
""")
    return path


def test_a_phase_says_what_differs(tmp_path: Path, shapes: Path) -> None:
    phases = "[{schedule: {epochs: 3, batch: 2}}, {augmentation: {crop: 0.0}}, {}]"
    path = _recipe(tmp_path, shapes, phases)
    first, second, third = load_phases(path)
    assert [each.name for each in (first, second, third)] == ["shapes-1", "shapes-2", "shapes"]
    assert [each.schedule.epochs for each in (first, second, third)] == [3, 1, 1]
    assert [each.schedule.batch for each in (first, second, third)] == [2, 4, 4]
    assert [each.augmentation.crop for each in (first, second, third)] == [0.3, 0.0, 0.3]
    assert first.schedule.learning_rate == second.schedule.learning_rate == 0.001
    starts = [each.model.start for each in (first, second, third)]
    assert starts == [None, *(str(tmp_path / "runs" / f"shapes-{n}" / "best.pt") for n in (1, 2))]
    assert load_recipe(path) == third
    alone = third.model_copy(update={"model": first.model})
    assert load_phases(_recipe(tmp_path, shapes, "[{}]")) == (alone,)


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ("[]", r"phases: is \[\], expected a list of what differs in each of them$"),
        ("{epochs: 3}", r"phases: is \{'epochs': 3\}, expected a list"),
        ("[{}, {schedule: {epocks: 3}}]", r"phases\.1: schedule\.epocks: unknown key; remove it"),
        ("[{name: other}, {}]", r"phases\.0: has a name or runs of its own; say them once"),
    ],
)
def test_mistakes_say_in_which_phase(tmp_path: Path, shapes: Path, phases: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_phases(_recipe(tmp_path, shapes, phases))


def test_each_begins_where_the_one_before_ended(
    tmp_path: Path, shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what is finished is left alone when the same command is given again; a changed phase is refused."""
    path = _recipe(tmp_path, shapes, "[{schedule: {epochs: 2}}, {schedule: {learning_rate: 0.00000001}}]")
    best = train(path)
    assert best == tmp_path / "runs" / "shapes" / "best.pt"
    before = tmp_path / "runs" / "shapes-1"
    weights = [read_checkpoint(each)["weights"] for each in (before / "best.pt", best)]
    for name, value in weights[0].items():
        if name.endswith(("weight", "bias")):
            torch.testing.assert_close(weights[1][name], value, atol=1e-5, rtol=0)
    assert f"starting from {before / 'best.pt'}" in capsys.readouterr().out

    best.parent.joinpath("last.pt").unlink()
    written = (before / "last.pt").stat().st_mtime_ns
    train(path)
    said = capsys.readouterr().out
    assert "shapes-1:" not in said.replace(str(before), "")
    assert "training shapes:" in said
    assert (before / "last.pt").stat().st_mtime_ns == written

    _recipe(tmp_path, shapes, "[{schedule: {epochs: 3}}, {schedule: {learning_rate: 0.00000001}}]")
    with pytest.raises(RecipeError, match=r"shapes-1.last\.pt: began with another recipe \(schedule\.epochs"):
        train(path)
    train(path, resume=False)
    assert "training shapes-1:" in capsys.readouterr().out
