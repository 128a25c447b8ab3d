"""The detector: frames of every kind onto the model's input, and boxes back into source pixels."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.reformatter import ColorRange, Colorspace

from export.artifact import PAD_VALUE, ArtifactError, Letterbox
from export.convert import ensure_contract
from export.reference import iou
from stream.detector import Detector
from stream.device import open_session
from stream.errors import DeviceUnavailable
from tests.export.conftest import save, yolox_like

Pixels = npt.NDArray[np.uint8]

MOST_MEAN = 3.5
"""Of 255: swscale rounds down on its fast paths, and interpolates chroma that the reference repeats."""

LUMA_WEIGHTS = {Colorspace.ITU601: (0.299, 0.114), Colorspace.ITU709: (0.2126, 0.0722)}


@pytest.fixture(scope="module")
def nano(yolox_nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YOLOX-nano as a contract file."""
    return ensure_contract(yolox_nano, lambda line: None, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A contract file of random weights, 128x128."""
    from export.adapt import Wishes
    from export.convert import export_model

    folder = tmp_path_factory.mktemp("models")
    out = folder / "tiny.onnx"
    export_model(
        save(yolox_like(), folder / "stranger.onnx"),
        out,
        wishes=Wishes(names=("a", "b", "c")),
        say=lambda line: None,
    )
    return out


@pytest.fixture(scope="module")
def frames(bikes: Path) -> list[av.VideoFrame]:
    """Of the bicycles clip, whose first frames are black."""
    with av.open(str(bikes)) as container:
        return list(islice(container.decode(video=0), 60, 240, 40))


def remade(frame: av.VideoFrame, width: int, height: int, pixel_format: str) -> av.VideoFrame:
    """A scaled and converted copy of its own, never the frame itself."""
    made = frame.reformat(width=width, height=height, format=pixel_format, threads=1)
    return made if made is not frame else av.VideoFrame.from_ndarray(frame.to_ndarray(), format=pixel_format)


def slow_rgb(frame: av.VideoFrame, full: bool, matrix: Colorspace) -> Pixels:
    """Full-size RGB of a planar 4:2:0 frame by the definition (BT.601 or BT.709), chroma repeated."""
    planes = [
        np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in frame.planes
    ]
    y = planes[0].astype(float)
    u, v = (
        plane.repeat(2, axis=0).repeat(2, axis=1)[: frame.height, : frame.width].astype(float) - 128
        for plane in planes[1:]
    )
    y, u, v = (y / 255, u / 255, v / 255) if full else ((y - 16) / 219, u / 224, v / 224)
    red_weight, blue_weight = LUMA_WEIGHTS[matrix]
    red, blue = y + 2 * (1 - red_weight) * v, y + 2 * (1 - blue_weight) * u
    green = (y - red_weight * red - blue_weight * blue) / (1 - red_weight - blue_weight)
    return (np.stack([red, green, blue], -1).clip(0, 1) * 255).round().astype(np.uint8)


def difference(detector: Detector, frame: av.VideoFrame, reference: Pixels) -> tuple[float, float]:
    """Mean and 99th percentile of the difference of the model's input from the reference."""
    detector.detect([frame], 0.5)
    spec = detector.spec
    letterbox = Letterbox.fit(frame.width, frame.height, spec.input_width, spec.input_height)
    want = letterbox.apply(reference).astype(int)
    apart = np.abs(detector.last_images[0].astype(int) - want)
    inside = apart[: letterbox.content_height, : letterbox.content_width].copy()
    apart[: letterbox.content_height, : letterbox.content_width] = 0
    assert not apart.any(), "the padding is exact"
    print(f"{frame}: mean {inside.mean():.2f}, 99% {np.percentile(inside, 99):.0f}, max {inside.max()}")
    return float(inside.mean()), float(np.percentile(inside, 99))


@pytest.mark.parametrize("size", [(640, 272), (1280, 720), (853, 481), (481, 853), (99, 77), (417, 416)])
@pytest.mark.parametrize(
    ("pixel_format", "full", "matrix"),
    [
        ("yuv420p", False, Colorspace.ITU601),
        ("yuv420p", False, Colorspace.ITU709),
        ("yuv420p", True, Colorspace.ITU601),
        ("yuvj420p", True, Colorspace.ITU601),
    ],
)
def test_letterbox_from_yuv_is_the_slow_one(
    tiny: Path,
    frames: list[av.VideoFrame],
    size: tuple[int, int],
    pixel_format: str,
    full: bool,
    matrix: Colorspace,
) -> None:
    frame = remade(frames[0], *size, pixel_format)
    frame.color_range = ColorRange.JPEG if full else ColorRange.MPEG
    frame.colorspace = 1 if matrix == Colorspace.ITU709 else 6  # H.273 code points
    mean, most = difference(Detector(tiny, "cpu", 1), frame, slow_rgb(frame, full, matrix))
    assert mean < MOST_MEAN
    assert most < 12


def test_a_wrong_range_or_matrix_would_be_seen(tiny: Path, frames: list[av.VideoFrame]) -> None:
    """The tolerance above is tight enough to tell them apart."""
    detector = Detector(tiny, "cpu", 1)
    frame = remade(frames[0], 640, 272, "yuv420p")
    right, _ = difference(detector, frame, slow_rgb(frame, False, Colorspace.ITU601))
    wrong, _ = difference(detector, frame, slow_rgb(frame, True, Colorspace.ITU601))
    assert right < MOST_MEAN < wrong


@pytest.mark.parametrize(
    "pixel_format", ["yuv422p", "yuv444p", "nv12", "yuv420p10le", "rgb24", "bgra", "gray"]
)
def test_other_pixel_formats(tiny: Path, frames: list[av.VideoFrame], pixel_format: str) -> None:
    frame = remade(frames[0], 322, 241, pixel_format)
    mean, _ = difference(Detector(tiny, "cpu", 1), frame, frame.to_ndarray(format="rgb24"))
    assert mean < 1


def test_sizes_may_change_from_frame_to_frame(tiny: Path, frames: list[av.VideoFrame]) -> None:
    detector = Detector(tiny, "cpu", 1)
    sizes = [(640, 272), (64, 480), (640, 272), (2, 2), (1, 90), (300, 301)]
    changing = [remade(frames[0], *size, "yuv420p") for size in sizes]
    for frame, found in zip(changing, detector.detect(changing, 0.0), strict=True):
        (alone,) = Detector(tiny, "cpu", 1).detect([frame], 0.0)
        np.testing.assert_array_equal(found.boxes, alone.boxes)
        np.testing.assert_array_equal(found.scores, alone.scores)
        assert (found.boxes >= 0).all()
        assert (found.boxes <= (frame.width, frame.height, frame.width, frame.height)).all()


def test_padding_is_clean_after_a_larger_picture(tiny: Path, frames: list[av.VideoFrame]) -> None:
    detector = Detector(tiny, "cpu", 1)
    detector.detect([remade(frames[0], 128, 128, "yuv420p")] * 3, 0.5)
    detector.detect([remade(frames[0], 128, 64, "yuv420p"), remade(frames[0], 64, 128, "yuv420p")], 0.5)
    assert detector.last_images.shape == (2, 128, 128, 3)
    assert (detector.last_images[0, 64:] == PAD_VALUE).all()
    assert (detector.last_images[1, :, 64:] == PAD_VALUE).all()


def test_people_on_bicycles_are_found_in_source_pixels(nano: Path, frames: list[av.VideoFrame]) -> None:
    detector = Detector(nano, "cpu")
    by_frame = detector.detect(frames, 0.4)
    assert any(len(found) for found in by_frame)
    names = {detector.spec.names[index] for found in by_frame for index in found.classes}
    assert {"person", "bicycle"} <= names
    for frame, found in zip(frames, by_frame, strict=True):
        assert (np.diff(found.scores) <= 0).all()
        (by_image,) = detector.detect_images([frame.to_ndarray(format="rgb24")], 0.2)
        overlap = iou(found.boxes, by_image.boxes) * (found.classes[:, None] == by_image.classes)
        assert (overlap.max(axis=1, initial=0) > 0.85).all(), (
            "the fast letterbox sees what the one of training sees"
        )


def test_a_frame_does_not_depend_on_its_batch(nano: Path, frames: list[av.VideoFrame]) -> None:
    detector = Detector(nano, "cpu")
    for frame, together in zip(frames, detector.detect(frames, 0.05), strict=True):
        (alone,) = detector.detect([frame], 0.05)
        np.testing.assert_allclose(alone.boxes, together.boxes, atol=0.01)
        np.testing.assert_allclose(alone.scores, together.scores, atol=1e-4)
        np.testing.assert_array_equal(alone.classes, together.classes)


def test_frames_are_never_written_to(tiny: Path, frames: list[av.VideoFrame]) -> None:
    before = [bytes(plane) for plane in frames[0].planes]
    tags = frames[0].color_range, frames[0].colorspace
    Detector(tiny, "cpu", 1).detect([frames[0]], 0.1)
    assert [bytes(plane) for plane in frames[0].planes] == before
    assert (frames[0].color_range, frames[0].colorspace) == tags


def test_no_pictures_and_nothing_found(tiny: Path, frames: list[av.VideoFrame]) -> None:
    detector = Detector(tiny, "cpu", 1)
    assert detector.detect([], 0.5) == []
    (found,) = detector.detect([frames[0]], 1.0)
    assert found.boxes.shape == (0, 4)
    assert found.boxes.dtype == np.float32
    assert found.classes.dtype == np.int64


def test_time_inside_the_run_is_counted(tiny: Path, frames: list[av.VideoFrame]) -> None:
    detector = Detector(tiny, "cpu", 1)
    assert detector.run_seconds == 0, "the warm-up does not count"
    detector.detect([frames[0]], 0.5)
    first = detector.last_run_s
    detector.detect([frames[0]], 0.5)
    assert detector.run_seconds == pytest.approx(first + detector.last_run_s)
    assert first > 0


# devices


def test_the_device_is_the_sessions_own(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    detector = Detector(tiny)
    on_cuda = "CUDAExecutionProvider" in detector.session.onnx.get_providers()
    assert detector.device == ("cuda" if on_cuda else "cpu")
    assert detector.reason
    print(detector.reason)
    noise = capfd.readouterr()
    assert noise.err == ""
    assert noise.out == f"{detector.reason}\n"


def test_cuda_is_never_silently_the_cpu(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if Detector(tiny).device == "cuda":
        assert Detector(tiny, "cuda").device == "cuda"
        return
    with pytest.raises(
        DeviceUnavailable, match=r"device: cuda was asked for, but .*; .*device: cpu"
    ) as caught:
        Detector(tiny, "cuda")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_asking_for_the_cpu_gets_it(tiny: Path) -> None:
    detector = Detector(tiny, "cpu", threads=1)
    assert (detector.device, detector.reason, detector.threads) == ("cpu", "as asked", 1)
    assert detector.session.onnx.get_providers() == ["CPUExecutionProvider"]


# files


def test_a_stranger_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = save(yolox_like(), tmp_path / "stranger.onnx")
    with pytest.raises(ArtifactError, match="adapt it first: lookout export"):
        Detector(path, "cpu")


def test_a_damaged_graph_is_one_line(tiny: Path, tmp_path: Path) -> None:
    from export.artifact import load, read_spec

    model = load(tiny)
    del model.graph.node[3:6]
    path = save(model, tmp_path / "damaged.onnx")
    with pytest.raises(ArtifactError, match=r"damaged\.onnx: onnxruntime cannot run this model") as caught:
        open_session(path, read_spec(model, "damaged"), "cpu", 1)
    assert "\n" not in str(caught.value)
