"""float16 and int8 files: what they hold, what they are held to, and what a failure says."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import agreement, pictures, precision
from export.accuracy import Annotated
from export.adapt import Wishes
from export.artifact import ArtifactError, ModelSpec, load, read_spec
from export.batch import loop_body, looped
from export.convert import export_model
from export.cpu import cpu_session
from export.graph import sorted_nodes
from export.network import channel_error, network_of, precision_of, prepared
from export.parity import ParityError, placed, run_file
from export.pictures import demo_pictures
from export.quantize import Calibration, calibrate, in_8_bits, quantizable, quantized
from export.stem import block_kernel
from stream.cli import main
from tests.export.conftest import save, yolox_like

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module", autouse=True)
def _fast() -> Iterator[None]:
    """A dozen frames, over which each model is run once to calibrate it, and no stopwatch."""
    real, found = precision.calibrate, dict[tuple[bytes, bytes], Calibration]()

    def once(model: onnx.ModelProto, images: np.ndarray, shown: Iterable[np.ndarray]) -> Calibration:
        which = (model.SerializeToString(deterministic=True), np.asarray(images).tobytes())
        if which not in found:
            found[which] = real(model, images, shown)
        return found[which]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "calibrate", once)
        patch.setattr(pictures, "_MANY", {"bikes.mp4": tuple(range(0, 240, 20))})
        patch.setattr(precision, "SPEED_S", 0.0)
        yield


@pytest.fixture(scope="module", params=["fp16", "int8"])
def lower(request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model in that precision."""
    out = tmp_path_factory.mktemp("lower") / f"{request.param}.onnx"
    said: list[str] = []
    export_model(model, out, precision=request.param, say=said.append)
    words = [line.split()[0] for line in said]
    assert [word for word in words if word != request.param] == [
        "recognised",
        "speed",
        "agreement",
        "written",
    ]
    assert words.count(request.param) in (2, 3)  # a third tells that more stays in float32
    return out


def test_the_file_says_what_it_is(lower: Path, model: Path) -> None:
    graph = load(lower)
    onnx.checker.check_model(graph, full_check=True)
    spec, original = read_spec(graph, "lower"), read_spec(load(model), "model")
    print(spec.parity)
    assert spec.precision == lower.stem
    assert lower.stem == "int8" or precision_of(graph) == "fp16"  # half of int8's layers may stay in float32
    assert (spec.names, spec.source_sha256) == (original.names, original.source_sha256)
    assert spec.parity["detections"] >= agreement.FEWEST_SURE
    assert spec.parity["agreeing_share"] >= agreement.BOUNDS[lower.stem].least_share  # type: ignore[index]
    assert lower.stat().st_size < 0.6 * model.stat().st_size


def test_only_the_network_is_lowered(lower: Path) -> None:
    """Nor, in int8, the layers that say boxes and scores."""
    graph = load(lower).graph
    weights = {tensor.name: tensor.data_type for tensor in graph.initializer}
    kinds = Counter(
        weights.get(node.input[1], 0) for node in graph.node if node.op_type == "Conv"
    )  # 0: behind a DequantizeLinear
    assert kinds.total() == 113
    if lower.stem == "fp16":
        assert kinds == {TensorProto.FLOAT16: 113}
    else:
        assert kinds.keys() == {0, TensorProto.FLOAT}
        assert kinds[0] >= 30
        assert kinds[TensorProto.FLOAT] >= 6


def test_an_8_bit_graph_is_in_order(yolox_nano: Path, tmp_path: Path) -> None:
    """SiLU needs a tensor twice, once in 8 bits and once without: what joins them has its place too."""
    export_model(yolox_nano, tmp_path / "nano.onnx", say=print)
    made = prepared(load(tmp_path / "nano.onnx"))
    spec = read_spec(made, "nano")
    images = [placed(picture, spec) for picture in demo_pictures()[:2]]
    calibration = calibrate(made, images, iter(images))
    onnx.checker.check_model(quantized(calibration, quantizable(calibration, 1, 1)))


def test_a_batch_gives_what_each_picture_gives(lower: Path) -> None:
    spec = read_spec(load(lower), "lower")
    images = np.stack([placed(picture, spec) for picture in demo_pictures()[:3]])
    session = cpu_session(str(lower))
    together = session.run(None, {"images": images})
    for row, image in enumerate(images):
        for many, one in zip(together, session.run(None, {"images": image[None]}), strict=True):
            np.testing.assert_allclose(many[row], one[0], atol=0.5 if many.ndim == 3 else 0.01)


@pytest.mark.parametrize("lower", ["fp16"], indirect=True)
def test_boxes_of_float16_are_not_rounded_to_its_steps(lower: Path, model: Path) -> None:
    spec = read_spec(load(model), "model")
    images = np.stack([placed(picture, spec) for picture in demo_pictures()])
    edges = np.concatenate([one.boxes[one.scores >= 0.3].ravel() for one in run_file(lower, images, 1)])
    assert edges.size >= 40
    steps = edges.astype(np.float16).astype(np.float32)  # of a quarter of a pixel at 256 and more
    assert np.mean(edges == steps) < 0.05


@pytest.mark.parametrize("wanted", ["fp16", pytest.param("int8", marks=pytest.mark.slow)])
def test_a_graph_in_a_loop_is_lowered_inside_it(wanted: str, model: Path, tmp_path: Path) -> None:
    single = load(model)
    for value in (single.graph.input[0], *single.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    loop = looped(single)
    helper.set_model_props(loop, {prop.key: prop.value for prop in single.metadata_props})
    path = save(loop, tmp_path / "loop.onnx")
    spec = export_model(path, tmp_path / "out.onnx", precision=wanted, say=lambda line: None)  # type: ignore[arg-type]
    made = load(tmp_path / "out.onnx")
    assert [node.op_type for node in made.graph.node] == ["Scan"]
    assert spec.precision == wanted
    if wanted == "fp16":
        assert precision_of(made) == wanted
    else:  # half of its layers may stay in float32
        assert sum(node.op_type == "DequantizeLinear" for node in loop_body(made).graph.node) > 60
    assert len(loop_body(made).graph.node) > 100


# the gate


def test_a_broken_tensor_is_named_and_no_file_made(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = precision.calibrate

    def wrong(*arguments: object) -> Calibration:
        found = real(*arguments)  # type: ignore[arg-type]
        return dataclasses.replace(found, ranges={**found.ranges, "detector/silu_5": (0.0, 1e-3)})

    monkeypatch.setattr(precision, "calibrate", wrong)
    monkeypatch.setattr(precision, "ATTEMPTS", ((0.0, 1),))
    with pytest.raises(ParityError, match=r"int8: .*the first tensor to drift is detector/silu_5 \(Mul "):
        export_model(model, tmp_path / "out.onnx", precision="int8", say=lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_what_leaves_half_precisions_range_is_named(tmp_path: Path) -> None:
    path = save(deep_yolox_like(factor=3e5), tmp_path / "deep.onnx")
    with pytest.raises(
        ParityError, match=r"fp16: .*first tensor to drift is detector/model/deep_wide \(Conv "
    ):
        export_model(path, tmp_path / "out.onnx", wishes=Wishes(names=NAMES), precision="fp16", say=print)
    assert [file.name for file in tmp_path.iterdir()] == ["deep.onnx"]


@pytest.mark.slow
def test_more_stays_in_float32_where_less_does_not_do(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = precision.check_agreement, []

    def strict_at_first(*arguments: object) -> agreement.Agreement:
        calls.append(arguments)
        if len(calls) == 1:
            raise ParityError("int8: not this one")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(precision, "check_agreement", strict_at_first)
    said: list[str] = []
    export_model(model, tmp_path / "out.onnx", precision="int8", say=said.append)
    assert said[2].endswith("too much: int8: not this one; again with more in float32")
    in_int8 = [int(line.split()[1]) for line in said[2:4]]
    assert all("of 113 layers in int8" in line for line in said[2:4])
    assert in_int8[0] >= 90
    assert in_int8[1] < 0.8 * in_int8[0]


@pytest.fixture
def annotated(model: Path, tmp_path: Path) -> Annotated:
    """The demo frames, with what the float32 file finds there as the truth."""
    pytest.importorskip("faster_coco_eval", reason="average precision needs the train extra")
    spec, folder = read_spec(load(model), "model"), tmp_path / "frames"
    folder.mkdir()
    images, boxes = [], []
    for number, picture in enumerate(demo_pictures()):
        height, width = picture.shape[:2]
        cv2.imwrite(str(folder / f"{number}.png"), picture[..., ::-1])
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        (found,) = run_file(model, placed(picture, spec)[None], 1)
        place = spec.place(width, height)
        for box, score, class_ in zip(found.boxes, found.scores, found.classes, strict=True):
            left, top, right, bottom = np.clip(
                place.to_source(box), 0, [width, height, width, height]
            ).tolist()
            if score >= 0.3:
                box_xywh = [left, top, right - left, bottom - top]
                boxes.append(
                    {
                        "id": len(boxes) + 1,
                        "image_id": number,
                        "category_id": int(class_),
                        "bbox": box_xywh,
                        "iscrowd": 0,
                    }
                )
    categories = [{"id": index, "name": name} for index, name in enumerate(spec.names)]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return Annotated(path, folder)


@pytest.mark.slow
def test_average_precision_is_bounded(
    model: Path, annotated: Annotated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bound(most: float) -> None:
        # CPUs without 8-bit dot products saturate: scores differ more there, and are not what this is about
        bounds = dataclasses.replace(agreement.BOUNDS["int8"], most_lost_ap=most, most_score_difference=0.1)
        monkeypatch.setitem(agreement.BOUNDS, "int8", bounds)

    bound(1.0)
    out = tmp_path / "out.onnx"
    said: list[str] = []
    spec = export_model(model, out, precision="int8", annotated=annotated, say=said.append)
    assert spec.parity["AP_fp32"] > 0.9
    assert 0.2 < spec.parity["AP"] < spec.parity["AP_fp32"]
    assert f"AP {spec.parity['AP']:.4f}, float32 {spec.parity['AP_fp32']:.4f}" in said[-2]
    bound(1e-6)
    fp32 = agreement.Fp32.of(model, spec, demo_pictures(), annotated)
    with pytest.raises(ParityError, match=r"int8: AP is 0\.\d+, that of float32 .* may differ by 1e-06"):
        agreement.check_agreement(fp32, out, "int8")


# what can be lowered


def test_a_file_without_a_precision_is_float32(model: Path) -> None:
    metadata = {prop.key: prop.value for prop in load(model).metadata_props}
    metadata.pop("lookout.precision", None)
    assert ModelSpec.from_metadata(metadata, "old").precision == "fp32"
    metadata["lookout.precision"] = "fp4"
    with pytest.raises(ArtifactError, match=r"damaged lookout metadata .*fp4"):
        ModelSpec.from_metadata(metadata, "odd")


def test_contract_files_that_are_refused(lower: Path, model: Path, tmp_path: Path) -> None:
    other = {"fp16": "int8", "int8": "fp16"}[lower.stem]
    for what, wanted, wishes, said in (
        (lower, lower.stem, Wishes(), "already is a lookout model"),
        (lower, other, Wishes(), f"is {lower.stem}; convert the fp32 file"),
        (model, "fp32", Wishes(), "already is a lookout model"),
        (model, other, Wishes(names=NAMES), "--precision alone can be changed"),
    ):
        with pytest.raises(ArtifactError, match=said):
            export_model(what, tmp_path / "out.onnx", wishes=wishes, precision=wanted)  # type: ignore[arg-type]


def test_half_precision_weights_are_left_as_they_are(tmp_path: Path) -> None:
    model = yolox_like()
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            rounded = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    path = save(model, tmp_path / "half.onnx")
    for wanted in ("fp32", "fp16"):
        spec = export_model(
            path,
            tmp_path / "out.onnx",
            wishes=Wishes(names=NAMES),
            precision=wanted,  # type: ignore[arg-type]
            say=lambda line: None,
        )
        assert spec.precision == "fp16"
        assert spec.parity["max_box_difference_px"] < 0.05
    with pytest.raises(ArtifactError, match="its weights are fp16 already, int8 needs them in float32"):
        export_model(path, tmp_path / "out.onnx", wishes=Wishes(names=NAMES), precision="int8")


@pytest.mark.usefixtures("log_kept")
def test_options_of_the_command(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["export", "lookout-nano", "--out", str(tmp_path / "out.onnx")]
    assert main([*given, "--precision", "int8", "--data", "truth.json"]) == 2
    assert "give both, or neither" in capsys.readouterr().err
    assert main([*given, "--data", "truth.json", "--images", "frames"]) == 2
    assert "--precision fp16 or int8" in capsys.readouterr().err
    assert main([*given, "--precision", "fp32"]) == 1
    assert "already is a lookout model" in capsys.readouterr().err


# the parts


def deep_yolox_like(factor: float = 1.0) -> onnx.ModelProto:
    """``yolox_like`` behind two convolutions; what lies between them is ``factor`` times too large."""
    model = yolox_like()
    for node in model.graph.node:
        node.input[:] = ["deep" if name == "pixels" else name for name in node.input]
    eye = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    model.graph.initializer.append(numpy_helper.from_array(eye * np.float32(factor), "widen"))
    model.graph.initializer.append(numpy_helper.from_array(eye / np.float32(factor), "narrow"))
    model.graph.node.insert(0, helper.make_node("Conv", ["pixels", "widen"], ["deep_wide"], name="widen"))
    model.graph.node.insert(1, helper.make_node("Conv", ["deep_wide", "narrow"], ["deep"], name="narrow"))
    return model


def test_the_network_lies_between_the_first_and_the_last_weights() -> None:
    model = deep_yolox_like()
    model.graph.node.insert(0, helper.make_node("Identity", ["pixels"], ["same"], name="before"))
    model.graph.node[1].input[0] = "same"
    ready = prepared(model)
    network = network_of(ready.graph)
    assert len(network.layers) == 11
    assert {network.to_end[name] for name in network.layers} == {1, 2, 3}
    kinds = {node.name: node.op_type for node in ready.graph.node}
    assert {kinds[name] for name in network.nodes} == {"Conv"}
    assert len(network.outputs) == 9


def test_a_faint_channel_counts_as_much_as_a_loud_one() -> None:
    exact = np.stack([np.full((4, 4), 100.0), np.full((4, 4), 0.1)])[None].astype(np.float32)
    assert channel_error(exact, in_8_bits(exact, 0.0, 100.0)) == pytest.approx(np.sqrt(0.5))
    assert channel_error(exact, exact) == 0.0
    assert channel_error(exact, np.full_like(exact, np.nan)) == 1.0


@pytest.mark.parametrize("before", [0, 1])
def test_a_stem_on_blocks_makes_the_same_sums(before: int) -> None:
    random = np.random.default_rng(0)
    kernel = random.normal(size=(5, 3, 3, 3)).astype(np.float32)
    pixels = random.normal(size=(2, 3, 12, 8)).astype(np.float32)

    def convolved(nodes: list[onnx.NodeProto], weights: np.ndarray) -> np.ndarray:
        shape = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 12, 8])
        out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph(nodes, "g", [shape], [out], [numpy_helper.from_array(weights, "w")])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        (result,) = cpu_session(model).run(None, {"x": pixels})
        return np.asarray(result)

    plain = helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2], pads=[before, before, 1, 1])
    fold = helper.make_node("SpaceToDepth", ["x"], ["b"], blocksize=2)
    pads = [before, before, 1 - before, 1 - before]
    blocks = helper.make_node("Conv", ["b", "w"], ["y"], pads=pads)
    expected = convolved([plain], kernel)
    got = convolved([fold, blocks], block_kernel(kernel, before))
    print("largest difference", np.abs(got - expected).max())
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_nodes_are_sorted_and_otherwise_stay_in_order() -> None:
    nodes = [helper.make_node("Neg", [source], [target]) for source, target in ("bc", "xz", "ab", "cd")]
    graph = helper.make_graph(nodes, "g", [], [])
    assert [node.output[0] for node in sorted_nodes(graph)] == ["b", "c", "z", "d"]
