"""Training for real, small: it learns, and a kill changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from models.checkpoint import CheckpointError, load_checkpoint, read_checkpoint, save_checkpoint
from models.ema import MovingAverage
from models.errors import DataError, RecipeError
from models.train import rate_at, train
from models.validate import validate
from models.yolox import Yolox, YoloxConfig

ROOT = Path(__file__).resolve().parents[2]


def _recipe(folder: Path, shapes: Path, epochs: int, **changes: str) -> Path:
    text = f"""
name: {changes.get("name", "shapes")}
names: [square, disc]
model: {{input_height: 96, input_width: 128, backbone_blocks: 12, width: 16}}
data:
  train: [{{annotations: {shapes}, images: {shapes.parent}, repeat: {changes.get("repeat", "1")}}}]
  validation: {{annotations: {shapes}, images: {shapes.parent}}}
augmentation: {{flip: 0.5, mosaic: {changes.get("mosaic", "0.5")}, crop: 0, shrink: 0, plain_epochs: 0}}
schedule:
  {{epochs: {epochs}, batch: 4, learning_rate: {changes.get("rate", "0.003")}, ema_decay: 0.9,
    frozen_blocks: 2, validate_every: {changes.get("validate_every", "1")}}}
device: cpu
precision: {changes.get("precision", "float32")}
workers: {changes.get("workers", "0")}
threads: 1
runs: {folder / "runs"}
"""
    path = folder / f"{changes.get('name', 'shapes')}.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("precision", ["float32", "mixed"])
def test_it_learns_a_handful_of_pictures(tmp_path: Path, shapes: Path, precision: str) -> None:
    recipe = _recipe(
        tmp_path, shapes, 8, repeat="8", mosaic="0", rate="0.01", validate_every="8", precision=precision
    )
    model, meta = load_checkpoint(train(recipe))
    metrics = validate(model, shapes, shapes.parent, torch.device("cpu"))
    print(metrics)
    assert metrics.AP50 > 0.7
    assert meta.ap50 == pytest.approx(metrics.AP50)
    assert (meta.names, meta.input_height, meta.input_width) == (("square", "disc"), 96, 128)


def _weights(content: dict[str, Any]) -> dict[str, torch.Tensor]:
    training = content["training"]
    return {**content["weights"], **{f"training.{name}": value for name, value in training["model"].items()}}


def test_a_killed_training_ends_as_an_undisturbed_one(tmp_path: Path, shapes: Path) -> None:
    undisturbed = _recipe(tmp_path, shapes, 3, name="undisturbed", validate_every="3")
    train(undisturbed)
    killed = _recipe(tmp_path, shapes, 3, name="killed", validate_every="3", workers="1")
    last = tmp_path / "runs" / "killed" / "last.pt"
    code = f"from pathlib import Path; from models.train import train; train(Path({str(killed)!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, start_new_session=True)
    deadline = time.monotonic() + 90
    while not last.exists():
        assert process.poll() is None, "it ended before it wrote a checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert read_checkpoint(last)["epoch"] < 3, "killed too late to prove anything"
    train(killed)
    resumed = _weights(read_checkpoint(last))
    expected = _weights(read_checkpoint(tmp_path / "runs" / "undisturbed" / "last.pt"))
    assert resumed.keys() == expected.keys()
    worst = max((resumed[name].double() - expected[name].double()).abs().max().item() for name in expected)
    print(f"max difference {worst}")
    assert worst == 0


def test_another_recipe_does_not_continue_a_training(tmp_path: Path, shapes: Path) -> None:
    train(_recipe(tmp_path, shapes, 2))
    with pytest.raises(RecipeError, match=r"began with another recipe \(schedule differ\)"):
        train(_recipe(tmp_path, shapes, 3))
    path = train(_recipe(tmp_path, shapes, 3), resume=False)
    assert load_checkpoint(path.with_name("last.pt"))[1].epoch == 3


def test_a_broken_picture_is_one_line_from_a_worker_too(tmp_path: Path, shapes: Path) -> None:
    (shapes.parent / "3.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"3\.png: not a readable picture") as caught:
        train(_recipe(tmp_path, shapes, 2, workers="1"))
    assert "\n" not in str(caught.value)


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    assert rate_at(0.05, 0.1) == pytest.approx(0.5)
    assert rate_at(0.1, 0.1) == pytest.approx(1)
    assert rate_at(0.55, 0.1) == pytest.approx((1 + 0.01) / 2)
    assert rate_at(1, 0.1) == pytest.approx(0.01)
    assert rate_at(0, 0) == pytest.approx(1)


def test_the_average_follows_the_weights() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 0.0)
    average = MovingAverage(model, decay=0.5)
    torch.nn.init.constant_(model.weight, 1.0)
    before = 0.0
    for _ in range(20):
        average.update(model)
        assert before < average.model.weight.item() <= 1
        before = average.model.weight.item()
    assert before > 0.99
    assert model.weight.item() == 1


def test_files_that_are_not_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "text.pt")
    torch.save({"weights": {}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="not a lookout checkpoint"):
        load_checkpoint(tmp_path / "other.pt")
    model = Yolox(YoloxConfig(("a",), 64, 64, 12, 8))
    save_checkpoint(tmp_path / "good.pt", model, 1, None)
    content = torch.load(tmp_path / "good.pt", weights_only=True)
    content["weights"].popitem()
    torch.save(content, tmp_path / "cut.pt")
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        load_checkpoint(tmp_path / "cut.pt")
    whole = (tmp_path / "good.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "half.pt")


def test_cuda_is_never_replaced_silently(tmp_path: Path, shapes: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    path = _recipe(tmp_path, shapes, 2)
    path.write_text(path.read_text().replace("device: cpu", "device: cuda"))
    with pytest.raises(RecipeError, match="device: cuda was asked for"):
        train(path)
