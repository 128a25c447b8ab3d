"""The parity check itself: it must notice what is wrong, and then there is no file."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export import adapt as adapting
from export.adapt import Wishes, adapt
from export.artifact import ModelSpec, load
from export.contract import complete
from export.convert import export_model
from export.parity import FEWEST_DETECTIONS, SCORE_THRESHOLD, Parity, ParityError, check_parity
from export.reference import Found, Pixels
from tests.export.conftest import save, yolox_like

NAMES = ("a", "b", "c")
SPEC = ModelSpec(names=NAMES, input_height=128, input_width=128, family="yolox")


def moved(model: onnx.ModelProto, output: str) -> str:
    """Renames an output inside the graph, so that a node can be put between; returns its new name."""
    inner = f"exact_{output}"
    for node in model.graph.node:
        node.input[:] = [inner if name == output else name for name in node.input]
        node.output[:] = [inner if name == output else name for name in node.output]
    return inner


def with_factor(model: onnx.ModelProto, output: str, factor: float) -> onnx.ModelProto:
    """The model with one of its outputs multiplied."""
    inner = moved(model, output)
    model.graph.initializer.append(helper.make_tensor("factor", TensorProto.FLOAT, [], [factor]))
    model.graph.node.append(helper.make_node("Mul", [inner, "factor"], [output]))
    return model


def with_batch_of_one(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a Reshape that only fits a batch of one."""
    inner = moved(model, "scores")
    model.graph.initializer.append(helper.make_tensor("one", TensorProto.INT64, [2], [1, 100]))
    model.graph.node.append(helper.make_node("Reshape", [inner, "one"], ["scores"]))
    return model


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda body, _: complete(body, 0.2), "does not"),
        (lambda body, nms: with_factor(complete(body, nms), "boxes", 1.002), r"does not|boxes differ"),
        (lambda body, nms: with_factor(complete(body, nms), "scores", 0.99), "scores differ"),
        (lambda body, nms: with_batch_of_one(complete(body, nms)), "does not run on a batch of 11:"),
    ],
    ids=["another NMS", "boxes a little larger", "scores a little lower", "only a batch of one"],
)
def test_a_graph_that_differs_makes_no_file(
    broken: object, said: str, stranger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapting, "complete", broken)
    with pytest.raises(ParityError, match=said):
        export_model(stranger, tmp_path / "out.onnx", wishes=Wishes(names=NAMES), say=print)
    assert [file.name for file in tmp_path.iterdir()] == ["stranger.onnx"]


def test_an_earlier_file_survives_a_failed_export(
    stranger: Path, adapted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = adapted.read_bytes()
    monkeypatch.setattr(adapting, "complete", lambda body, _: complete(body, 0.2))
    with pytest.raises(ParityError):
        export_model(stranger, adapted, wishes=Wishes(names=NAMES), say=print)
    assert adapted.read_bytes() == before


def test_nothing_to_compare_makes_no_file(tmp_path: Path) -> None:
    path = save(yolox_like(silent=True), tmp_path / "silent.onnx")
    with pytest.raises(ParityError, match=r"no detections .* give pictures .*--pictures FOLDER"):
        export_model(path, tmp_path / "out.onnx", wishes=Wishes(names=NAMES), say=print)
    assert not (tmp_path / "out.onnx").exists()


def test_a_detection_that_only_one_has_is_noticed(adapted: Path) -> None:
    def blind(picture: Pixels) -> Found:
        return Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    pictures = [np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)]
    with pytest.raises(ParityError, match=r"the exported file finds class .* the model does not"):
        check_parity(adapted, blind, pictures, SPEC)


def test_a_few_detections_that_agree_are_no_proof(adapted: Path, stranger: Path, tmp_path: Path) -> None:
    """Scores are scaled until so many of one picture count; synthetic shapes do not."""
    body = adapt(stranger, load(stranger), Wishes(names=NAMES))
    seen = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    exact = body.reference(seen).scores

    def check(count: int) -> Parity:
        factor = float(2 * SCORE_THRESHOLD / (exact[count - 1] + exact[count]))
        path = save(with_factor(load(adapted), "scores", factor), tmp_path / "scaled.onnx")

        def reference(picture: Pixels) -> Found:
            found = body.reference(picture)
            return Found(found.boxes, found.scores * np.float32(factor), found.classes, found.cut * factor)

        return check_parity(path, reference, [seen], SPEC, shapes=[seen])

    parity = check(FEWEST_DETECTIONS)
    assert (parity.detections, parity.pictures, parity.shapes) == (FEWEST_DETECTIONS, 1, 1)
    with pytest.raises(ParityError, match=r"9 detections .* expected 10 or more .* --pictures FOLDER"):
        check(FEWEST_DETECTIONS - 1)


def test_a_difference_says_in_which_run_it_was(adapted: Path, stranger: Path) -> None:
    body = adapt(stranger, load(stranger), Wishes(names=NAMES))
    seen = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    calls = itertools.count(1)

    def blind_to_the_second(picture: Pixels) -> Found:
        found = body.reference(picture)
        return found if next(calls) != 2 else Found(found.boxes[:0], found.scores[:0], found.classes[:0])

    with pytest.raises(ParityError, match="in picture 2 of 2, alone, the exported file finds"):
        check_parity(adapted, blind_to_the_second, [seen, seen], SPEC)
