"""VOC's average precision and ImageNet's localization error on cases whose figures are known."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.annotated import Annotation, Box, CocoFile, Picture
from models.errors import DataError
from models.evaluate import Prediction
from models.localization_error import localization_error
from models.voc_evaluate import Curve, curves, voc_metrics

NAMES = ("a", "b")
A, DIFFICULT, B, C = (
    (0.0, 0.0, 10.0, 10.0),
    (20.0, 0.0, 30.0, 10.0),
    (0.0, 0.0, 10.0, 10.0),
    (50.0, 50.0, 60.0, 60.0),
)


def _file(*boxes: tuple[int, int, Box, bool]) -> CocoFile:
    """Objects as picture, class, box, difficult."""
    pictures = tuple(Picture(number, f"{number}.jpg", 100, 100) for number in (1, 2))
    found = tuple(Annotation(image, class_, box, 100.0, hard) for image, class_, box, hard in boxes)
    return CocoFile(Path("some"), NAMES, pictures, found, 0, 0)


def _prediction(image_id: int, *rows: tuple[float, int, Box]) -> Prediction:
    return Prediction(
        image_id,
        np.array([box for _, _, box in rows], np.float32).reshape(-1, 4),
        np.array([score for score, _, _ in rows], np.float32),
        np.array([class_ for _, class_, _ in rows], np.int64),
    )


def _close(found: float, expected: float) -> bool:
    return found == pytest.approx(expected)


THREE = _file((1, 0, A, False), (1, 0, DIFFICULT, True), (2, 0, B, False), (2, 0, C, False))


def test_average_precision_by_hand() -> None:
    """Right, a duplicate, twice a difficult one, half of a box, less than half of one, nothing."""
    predictions = [
        _prediction(1, (0.7, 0, DIFFICULT), (0.9, 0, A), (0.65, 0, DIFFICULT), (0.8, 0, A)),
        _prediction(
            2, (0.6, 0, (0, 0, 10, 5)), (0.5, 0, (50, 50, 60, 54.9)), (0.4, 0, (80, 0, 90, 10)), (0.3, 1, C)
        ),
    ]
    found = curves(THREE, NAMES, predictions)
    assert set(found) == {"a"}  # there is no object of b
    curve = found["a"]
    assert curve.scores.tolist() == pytest.approx([0.9, 0.8, 0.6, 0.5, 0.4])
    assert curve.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3, 2 / 4, 2 / 5])
    assert curve.recall.tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert _close(voc_metrics(found).AP50, 1 / 3 * 1 + 1 / 3 * 2 / 3)
    assert _close(voc_metrics(found, eleven_points=True).AP50, (4 * 1 + 3 * 2 / 3) / 11)


def test_precision_at_a_recall_is_the_best_at_or_beyond_it() -> None:
    curve = Curve(np.zeros(3), np.array([1 / 2, 1 / 3, 3 / 4]), np.array([0.25, 0.5, 1.0]))
    assert curve.area() == pytest.approx(3 / 4)
    assert curve.eleven_points() == pytest.approx(3 / 4)


def test_all_found_and_nothing_found() -> None:
    everything = [_prediction(1, (0.9, 0, A)), _prediction(2, (0.8, 0, B), (0.7, 0, C))]
    for eleven in (False, True):
        assert _close(voc_metrics(curves(THREE, NAMES, everything), eleven).AP50, 1)
        assert _close(voc_metrics(curves(THREE, NAMES, []), eleven).AP50, 0)


def test_the_mean_is_over_classes_with_objects() -> None:
    file = _file((1, 0, A, False), (1, 1, C, False))
    metrics = voc_metrics(curves(file, NAMES, [_prediction(1, (0.9, 0, A), (0.8, 1, A))]))
    assert metrics.per_class_AP50 == pytest.approx({"a": 1, "b": 0})
    assert _close(metrics.AP50, 0.5)


def test_difficult_objects_alone_are_nothing_to_measure() -> None:
    only = _file((1, 0, A, True))
    for measure in (curves, localization_error):
        with pytest.raises(DataError, match="has no box of a, b"):
            measure(only, NAMES, [])


def test_localization_needs_class_and_box() -> None:
    file = _file((1, 0, A, False), (2, 1, C, False))
    right = _prediction(1, (0.2, 1, A), (0.1, 0, (0, 0, 10, 5)))
    wrong_box = _prediction(2, (0.9, 1, A), (0.8, 1, C))  # a class has one guess, its best box
    error = localization_error(file, NAMES, [right, wrong_box])
    assert (error.localization_error, error.classification_error, error.pictures) == (0.5, 0, 2)
    assert localization_error(file, NAMES, [right]).classification_error == 0.5  # nothing said: wrong
    assert localization_error(file, NAMES, [right, wrong_box], guesses=1).localization_error == 1


def test_only_five_classes_may_be_said() -> None:
    names = tuple("abcdef")
    file = _file((1, 5, A, False))
    guesses = [(0.9 - number / 10, number, A) for number in range(6)]
    assert localization_error(file, names, [_prediction(1, *guesses)]).localization_error == 1
    assert localization_error(file, names, [_prediction(1, *guesses[1:])]).localization_error == 0


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="needs matplotlib, of the extra plots")
def test_curves_are_drawn(tmp_path: Path) -> None:
    """In a process of its own, where GStreamer cannot have loaded what matplotlib does not survive."""
    script = (
        "import sys, numpy as np; from pathlib import Path; from models.curve_plot import draw_curves\n"
        "from models.voc_evaluate import Curve\n"
        "half, full = np.array([0.5, 1.0]), np.array([1.0, 0.75])\n"
        "draw_curves({'a': Curve(half, full, half)}, Path(sys.argv[1]))"
    )
    out = tmp_path / "curves.png"
    subprocess.run([sys.executable, "-c", script, str(out)], check=True)
    picture = cv2.imread(str(out), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert picture.std() > 5  # not an empty sheet
