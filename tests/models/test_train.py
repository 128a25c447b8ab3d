"""Training for real, small: it learns, and a kill changes nothing."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
import torch
from tensorboardX.proto import event_pb2

from models.checkpoint import CheckpointError, load_checkpoint, read_checkpoint, save_checkpoint
from models.errors import DataError, RecipeError
from models.machine import TrainingStopped, machine_limits
from models.recipe import load_recipe
from models.run_report import EVENTS
from models.train import train
from models.validate import load_validation, validate
from models.yolox import Yolox, YoloxConfig
from tests.models.conftest import SHAPES, draw_shapes

ROOT = Path(__file__).resolve().parents[2]


def _recipe(folder: Path, shapes: Path, epochs: int, **changes: str) -> Path:
    text = f"""
name: {changes.get("name", "shapes")}
names: [square, disc]
model: {{{changes.get("input", "input_height: 96, input_width: 128")}, backbone_blocks: 12, width: 16}}
data:
  train: [{{annotations: {shapes}, images: {shapes.parent}, repeat: {changes.get("repeat", "1")}}}]
  validation: {{annotations: {shapes}, images: {shapes.parent}}}
augmentation: {{flip: 0.5, mosaic: {changes.get("mosaic", "0.5")}, crop: 0, shrink: 0, plain_epochs: 0}}
schedule:
  {{epochs: {epochs}, batch: 4, learning_rate: {changes.get("rate", "0.003")}, ema_decay: 0.9,
    frozen_blocks: {changes.get("frozen", "2")}, validate_every: {changes.get("validate_every", "1")},
    {changes.get("more", "")}}}
device: cpu
precision: {changes.get("precision", "float32")}
workers: {changes.get("workers", "0")}
threads: 1
runs: {folder / "runs"}
"""
    path = folder / f"{changes.get('name', 'shapes')}.yaml"
    path.write_text(text)
    return path


QUICK = {"input": "input_height: 64, input_width: 96", "frozen": "6", "mosaic": "0", "rate": "0.01"}
"""Of a recipe that learns in a hundred steps."""


SMALL = {name: value for name, value in QUICK.items() if name != "rate"}


@pytest.mark.slow
def test_it_learns_a_handful_of_pictures(tmp_path: Path, shapes: Path) -> None:
    recipe = _recipe(tmp_path, shapes, 6, repeat="8", validate_every="6", precision="float32", **QUICK)
    model, meta = load_checkpoint(train(recipe))
    data = load_validation(shapes, shapes.parent, SHAPES)
    metrics, _ = validate(model, data, torch.device("cpu"))
    print(metrics)
    assert metrics.AP50 > 0.7
    assert meta.ap50 == pytest.approx(metrics.AP50)
    assert (meta.names, meta.input_height, meta.input_width) == (("square", "disc"), 64, 96)


@pytest.mark.slow
def test_it_learns_in_mixed_precision(
    tmp_path: Path, shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A few steps, since most machines only emulate bfloat16: the loss falls with each epoch."""
    recipe = _recipe(tmp_path, shapes, 3, repeat="2", validate_every="3", precision="mixed", **QUICK)
    last = train(recipe).with_name("last.pt")
    said = capsys.readouterr().out
    assert "on cpu in bfloat16" in said
    losses = [float(loss) for loss in re.findall(r"epoch \d/3  loss ([\d.]+)", said)]
    assert len(losses) == 3
    assert losses[0] - 0.4 > losses[1] > losses[2] + 0.2
    kept = read_checkpoint(last)["training"]["model"]
    assert {value.dtype for value in kept.values() if value.is_floating_point()} == {torch.float32}


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


def _events(folder: Path) -> Iterator[Any]:
    """TensorBoard's: each its length in 8 bytes and a checksum of 4, the event, another checksum."""
    data = (folder / EVENTS).read_bytes()
    while data:
        (length,) = struct.unpack_from("<Q", data)
        yield event_pb2.Event.FromString(data[12 : 12 + length])
        data = data[12 + length + 4 :]


def test_a_run_leaves_what_people_want_to_see(tmp_path: Path, shapes: Path) -> None:
    recipe = _recipe(tmp_path, shapes, 2, validate_every="2")
    folder = train(recipe).parent
    assert load_recipe(folder / "recipe.yaml") == load_recipe(recipe)
    with (folder / "metrics.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["epoch"], second["epoch"]) == ("1", "2")
    parts = [float(second[name]) for name in second if name.startswith("loss ")]
    assert len(parts) >= 3
    assert float(second["loss"]) == pytest.approx(sum(parts), abs=1e-3)
    assert (first["AP50"], first["AP50 disc"]) == ("", ""), "was not validated"
    assert 0 <= float(second["AP50 disc"]) <= 1
    logged = {
        (value.tag, event.step): value.simple_value
        for event in _events(folder)
        for value in event.summary.value
    }
    assert logged["AP50/disc", 2] == pytest.approx(float(second["AP50 disc"]), abs=1e-6)
    assert logged["loss", 1] == pytest.approx(float(first["loss"]), abs=1e-5)
    for name in ("curves.png", "confusion.png", "predictions.jpg"):
        picture = cv2.imread(str(folder / name))
        assert picture is not None, name
        assert picture.std() > 10
    train(recipe)  # nothing is left to do, nothing changes
    assert (folder / "metrics.csv").read_text().count("\n") == 3
    train(recipe, resume=False)
    assert (folder / "metrics.csv").read_text().count("\n") == 3
    assert [event.step for event in _events(folder)] == [0, 1, 2]


def test_it_ends_when_it_gets_no_better_and_stays_ended(
    tmp_path: Path, shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rate at which nothing is learned: the first validation stays the best."""
    recipe = _recipe(tmp_path, shapes, 9, rate="0.0000000001", more="patience: 2, accumulate: 3", **SMALL)
    last = train(recipe).with_name("last.pt")
    assert read_checkpoint(last)["epoch"] == 3
    assert "no better since 2 validations: ended after epoch 3" in capsys.readouterr().out
    train(recipe)
    assert read_checkpoint(last)["epoch"] == 3


def test_another_recipe_does_not_continue_a_training(tmp_path: Path, shapes: Path) -> None:
    train(_recipe(tmp_path, shapes, 2))
    with pytest.raises(RecipeError, match=r"began with another recipe \(schedule\.epochs changed\)"):
        train(_recipe(tmp_path, shapes, 3))
    path = train(_recipe(tmp_path, shapes, 3), resume=False)
    assert load_checkpoint(path.with_name("last.pt"))[1].epoch == 3


def test_the_remedies_that_errors_name_are_no_other_recipe(tmp_path: Path, shapes: Path) -> None:
    recipe = _recipe(tmp_path, shapes, 2)
    last = train(recipe).with_name("last.pt")
    first = read_checkpoint(last)
    data = first["training"]["recipe"]["data"]
    data["validation"]["labelled"] = "all"  # as former versions wrote it
    del data["train"][0]["map"]
    torch.save(first, last)
    text = _recipe(tmp_path, shapes, 2, rate="0.001").read_text()
    recipe.write_text(text.replace("batch: 4", "batch: 2, clip_norm: 1"))
    train(recipe)
    recipe.write_text(recipe.read_text().replace("[square, disc]", "[disc, square]"))
    with pytest.raises(RecipeError, match=r"began with another recipe \(names changed\)"):
        train(recipe)


def test_a_restart_forgets_the_checkpoints_of_before(tmp_path: Path, shapes: Path) -> None:
    recipe = _recipe(tmp_path, shapes, 1)
    best = train(recipe)
    (shapes.parent / "3.png").write_bytes(b"not a picture")
    with pytest.raises(DataError):
        train(recipe, resume=False)
    assert not best.exists()
    assert not best.with_name("last.pt").exists()


def test_validation_data_is_checked_before_the_first_epoch(tmp_path: Path, shapes: Path) -> None:
    recipe = _recipe(tmp_path, shapes, 1)
    text = recipe.read_text()
    recipe.write_text(
        text.replace(f"validation: {{annotations: {shapes}", "validation: {annotations: typo.json")
    )
    with pytest.raises(DataError, match=r"typo\.json: cannot be read"):
        train(recipe)
    assert not (tmp_path / "runs").exists()


def test_an_epoch_outlives_a_failed_validation(tmp_path: Path, shapes: Path) -> None:
    """The epoch is kept, and validated by the next run even though nothing is left to train."""
    held_out = draw_shapes(tmp_path / "held_out", 4)
    recipe = _recipe(tmp_path, shapes, 1)
    text = recipe.read_text().split("validation:")[1].splitlines()[0]
    recipe.write_text(
        recipe.read_text().replace(text, f" {{annotations: {held_out}, images: {held_out.parent}}}")
    )
    picture = held_out.parent / "2.png"
    whole = picture.read_bytes()
    picture.write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"2\.png: not a readable picture"):
        train(recipe)
    folder = tmp_path / "runs" / "shapes"
    assert read_checkpoint(folder / "last.pt")["epoch"] == 1
    assert not (folder / "best.pt").exists()
    picture.write_bytes(whole)
    _, meta = load_checkpoint(train(recipe))
    assert (meta.epoch, meta.ap50) == (1, read_checkpoint(folder / "last.pt")["ap50"])
    assert meta.ap50 is not None


def test_a_misspelt_class_is_not_trained_as_background(tmp_path: Path, shapes: Path) -> None:
    recipe = _recipe(tmp_path, shapes, 1)
    recipe.write_text(recipe.read_text().replace("[square, disc]", "[square, Disc]"))
    with pytest.raises(RecipeError, match=r"no training data has a category Disc; .* not in names: disc\)"):
        train(recipe)


def test_data_without_a_box_teaches_nothing(tmp_path: Path, shapes: Path) -> None:
    document = json.loads(shapes.read_text())
    document["annotations"] = []
    empty = shapes.with_name("empty.json")
    empty.write_text(json.dumps(document))
    recipe = _recipe(tmp_path, shapes, 1)
    recipe.write_text(recipe.read_text().replace(f"[{{annotations: {shapes}", f"[{{annotations: {empty}"))
    with pytest.raises(DataError, match="has no box of square, disc; there is nothing to learn"):
        train(recipe)


def test_it_says_the_boxes_and_how_to_export(
    tmp_path: Path, shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = train(_recipe(tmp_path, shapes, 1, repeat="3"))
    said = capsys.readouterr().out
    assert "boxes an epoch: square 12, disc 12\n" in said
    assert f"lookout export {best} --out shapes.onnx --pictures {shapes.parent}\n" in said


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, shapes: Path) -> None:
    (tmp_path / "runs").write_text("a file, not a folder")
    with pytest.raises(RecipeError, match=r"runs: .* cannot be made .*; give another folder"):
        train(_recipe(tmp_path, shapes, 1))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_a_full_disk_is_one_line_and_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    model = Yolox(YoloxConfig(("a",), 64, 64, 12, 8))
    path, unfinished = tmp_path / "last.pt", tmp_path / "last.partial"
    save_checkpoint(path, model, 1, None)
    unfinished.symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match=r"last\.pt: cannot be written .*; make room") as caught:
        save_checkpoint(path, model, 2, None)
    assert "\n" not in str(caught.value)
    assert not unfinished.is_symlink()
    assert load_checkpoint(path)[1].epoch == 1


def test_a_killed_worker_is_one_line(tmp_path: Path, shapes: Path) -> None:
    ended = threading.Event()

    def kill_workers() -> None:
        while not ended.wait(0.05):
            for child in psutil.Process().children():
                child.kill()

    killer = threading.Thread(target=kill_workers)
    killer.start()
    try:
        with pytest.raises(
            TrainingStopped, match=r"worker process .*; lower schedule.batch or workers"
        ) as caught:
            train(_recipe(tmp_path, shapes, 20, repeat="50", workers="1"))
    finally:
        ended.set()
        killer.join()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "allocate", [lambda: torch.empty(1 << 50, dtype=torch.uint8), lambda: np.empty(1 << 50)]
)
def test_too_little_memory_is_one_line(allocate: Callable[[], object]) -> None:
    with pytest.raises(TrainingStopped, match=r"out of memory .*; lower schedule.batch or workers") as caught:
        with machine_limits():
            allocate()
    assert "\n" not in str(caught.value)


def test_a_mistake_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        with machine_limits():
            torch.zeros(3).reshape(2, 2)


def test_a_broken_picture_is_one_line_from_a_worker_too(tmp_path: Path, shapes: Path) -> None:
    (shapes.parent / "3.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"3\.png: not a readable picture") as caught:
        train(_recipe(tmp_path, shapes, 2, workers="1"))
    assert "\n" not in str(caught.value)


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
