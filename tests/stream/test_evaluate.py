"""``lookout eval`` with the metrics and annotations of VOC and ImageNet."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import pytest

from models.coco import load_coco
from tests.models.voc_files import write_voc

NAMES = ("person", "car", "dog", "cat")
PICTURES = 12


@pytest.fixture(scope="module")
def few(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The first pictures of COCO with VOC's XML beside them: two folders."""
    source, folder = shared / "data" / "coco-mini", tmp_path_factory.mktemp("few")
    examples = load_coco(source / "instances_val.json", source / "images", NAMES)
    for example in [example for example in examples if len(example.boxes)][:PICTURES]:
        objects = [
            (
                NAMES[class_],
                (
                    round(left) + 1,
                    round(top) + 1,
                    max(round(right), round(left) + 1),
                    max(round(bottom), round(top) + 1),
                ),
                0,
            )
            for class_, (left, top, right, bottom) in zip(
                example.classes, example.boxes.tolist(), strict=True
            )
        ]
        xml = folder / f"{example.path.stem}.xml"
        write_voc(xml, example.path.name, example.width, example.height, objects)
    return folder, source / "images"


def _eval(few: tuple[Path, Path], *options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stream.cli", "eval", "--data", few[0], "--images", few[1], *options]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


def _figures(few: tuple[Path, Path], *options: object) -> dict[str, Any]:
    result = _eval(few, "--json", *options)
    assert result.returncode == 0, result.stderr
    figures: dict[str, Any] = json.loads(result.stdout)
    return figures


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="needs matplotlib, of the extra plots")
def test_vocs_figures_are_close_to_cocos(few: tuple[Path, Path], tmp_path: Path) -> None:
    coco = _figures(few)
    area = _figures(few, "--metric", "voc", "--curves", tmp_path / "curves.png")
    print(coco["AP50"], area)
    assert set(area["per_class_AP50"]) == set(coco["per_class_AP50"])
    assert 0.2 < area["AP50"] < 0.95
    assert area["AP50"] == pytest.approx(coco["AP50"], abs=0.03)
    assert cv2.imread(str(tmp_path / "curves.png")) is not None


def test_the_localization_error_is_printed(few: tuple[Path, Path]) -> None:
    result = _eval(few, "--metric", "localization")
    assert result.returncode == 0, result.stderr
    words = result.stdout.split()
    assert words[0::2] == ["localization_error", "classification_error"]
    assert 0 <= float(words[3]) <= float(words[1]) < 0.8


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="needs matplotlib, of the extra plots")
def test_a_plot_that_cannot_be_is_refused_at_once(few: tuple[Path, Path], tmp_path: Path) -> None:
    result = _eval(few, "--curves", tmp_path / "none" / "curves.png")
    assert result.returncode == 2
    assert "expected a .png, .svg or .pdf file in a folder that is there" in result.stderr
