"""``lookout detect``: rows and video of a real clip by a real detector."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
from av import VideoFrame

from stream.annotate import Annotator
from stream.config import CameraConfig, DetectorConfig
from stream.detector import Detector
from stream.errors import LookoutError, SourceNotFound, UsageError
from stream.evaluate import evaluate
from stream.frames import Detections, Frame, Tracks
from stream.offline import Outputs, detect, frame_count, run
from stream.sources import SourceOptions, open_source
from stream.tracking import Tracker
from stream.video_file import annotated
from stream.writers import Format, make_writer, opened
from tests.stream.clips import people

FRAMES = 40
SETTINGS = DetectorConfig(score_threshold=0.3)


@pytest.fixture(scope="session")
def clip(bikes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures 115 to 154 of the clip, people on bicycles, as a file of their own: 640x272, 25 fps."""
    return people(tmp_path_factory.mktemp("clip") / "short.mp4", bikes, FRAMES, "ultrafast")


def detected(clip: Path, detector: Detector, kind: Format, out: Path, video: Path | None = None) -> Path:
    summary = detect(CameraConfig(source=str(clip)), detector, SETTINGS, Outputs(kind, out, video))
    assert summary.frames == FRAMES
    return out


def test_three_formats_tell_the_same(clip: Path, detector: Detector, tmp_path: Path) -> None:
    lines = detected(clip, detector, "jsonl", tmp_path / "a.jsonl").read_text().splitlines()
    frames = [json.loads(line) for line in lines]
    assert [frame["index"] for frame in frames] == list(range(FRAMES))
    np.testing.assert_allclose([frame["time_s"] for frame in frames], np.arange(FRAMES) / 25, atol=1e-3)
    boxes = [box for frame in frames for box in frame["boxes"]]
    assert {"person", "bicycle"} & {box["name"] for box in boxes}, "the clip shows people on bicycles"
    seen = [box for box in boxes if not box["coasting"]]
    assert len({box["id"] for box in seen}) < len(seen) / 5, "ids last"
    for box in seen:
        x1, y1, x2, y2 = box["xyxy"]
        assert x1 < x2
        assert y1 < y2
        assert 0 < box["score"] <= 1

    people = [box for box in seen if box["name"] == "person"]
    rows = np.loadtxt(detected(clip, detector, "mot", tmp_path / "a.txt"), delimiter=",", ndmin=2)
    assert rows.shape == (len(people), 10)
    assert (rows[:, 7:] == -1).all()
    assert rows[:, 0].min() >= 1
    corners = np.array([box["xyxy"] for box in people])
    np.testing.assert_allclose(rows[:, 2:4], corners[:, :2], atol=0.011)
    np.testing.assert_allclose(rows[:, 4:6], corners[:, 2:] - corners[:, :2], atol=0.021)
    assert rows[:, 1].tolist() == [box["id"] for box in people]

    coco = json.loads(detected(clip, detector, "coco", tmp_path / "a.json").read_text())
    assert [image["id"] for image in coco["images"]] == list(range(1, FRAMES + 1))
    assert (coco["images"][0]["width"], coco["images"][0]["height"]) == (640, 272)
    names = {category["id"]: category["name"] for category in coco["categories"]}
    assert list(names.values()) == list(detector.spec.names)
    assert [names[row["category_id"]] for row in coco["annotations"]] == [box["name"] for box in seen]
    assert [row["track_id"] for row in coco["annotations"]] == [box["id"] for box in seen]
    assert len({row["id"] for row in coco["annotations"]}) == len(seen)
    assert not list(tmp_path.glob("*.partial*"))


class Keeps:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.rows: list[tuple[Frame, Tracks]] = []

    def write(self, frame: Frame, tracks: Tracks) -> None:
        self.rows.append((frame, tracks))


def test_the_video_shows_each_frames_own_boxes(clip: Path, detector: Detector, tmp_path: Path) -> None:
    video, kept = tmp_path / "drawn.mp4", Keeps()
    with (
        closing(open_source(str(clip), SourceOptions(pace="lossless"))) as source,
        annotated(video) as video_out,
    ):
        run(source, detector, Tracker(), write=kept, video_out=video_out, progress=False)
    with av.open(str(video)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        annotator, count = Annotator(), 0
        for drawn, (frame, tracks) in zip(container.decode(video=0), kept.rows, strict=True):
            assert drawn.time == pytest.approx(frame.time_s, abs=0.002)
            expected = annotator.draw(frame.picture, tracks).to_ndarray()
            marked = np.abs(expected.astype(int) - frame.picture.to_ndarray()) > 40
            if marked.any():
                count += 1
                difference = np.abs(drawn.to_ndarray().astype(int) - expected)[marked]
                assert difference.mean() < 12, frame.index
        assert count > FRAMES / 4


def test_two_runs_are_identical(clip: Path, detector: Detector, tmp_path: Path) -> None:
    one = detected(clip, detector, "jsonl", tmp_path / "one.jsonl").read_bytes()
    assert one == detected(clip, detector, "jsonl", tmp_path / "two.jsonl").read_bytes()


class Stops:
    """A detector that is interrupted, as by Ctrl-C, after some frames."""

    def __init__(self, detector: Detector, after: int) -> None:
        self._detector, self._left = detector, after

    def detect(self, pictures: list[VideoFrame], score_threshold: float) -> list[Detections]:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        return self._detector.detect(pictures, score_threshold)


@pytest.mark.parametrize("kind", ["jsonl", "mot", "coco"])
def test_an_interrupted_run_keeps_what_was_done(
    clip: Path, detector: Detector, tmp_path: Path, kind: Format
) -> None:
    out, video = tmp_path / "rows.txt", tmp_path / "drawn.mp4"
    source = open_source(str(clip), SourceOptions(pace="lossless"))
    with pytest.raises(KeyboardInterrupt):
        with opened(kind, out, detector.spec.names) as rows, annotated(video) as film:
            run(source, Stops(detector, 12), Tracker(), write=rows, video_out=film, progress=False)
    source.close()
    assert not out.exists()
    assert not video.exists()
    text = (tmp_path / "rows.partial.txt").read_text()
    if kind == "jsonl":
        assert [json.loads(line)["index"] for line in text.splitlines()] == list(range(12))
    if kind == "coco":
        assert len(json.loads(text)["images"]) == 12
    with av.open(str(tmp_path / "drawn.partial.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 12


def test_ctrl_c_ends_the_command_soon(tmp_path: Path) -> None:
    """The real command, a real signal; the source never ends."""
    out = tmp_path / "rows.jsonl"
    code = "import sys; from stream.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "detect", "synthetic:320x240@30", "--threads", "1", "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    partial = tmp_path / "rows.partial.jsonl"
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size > 0):
        assert time.monotonic() < deadline, "no rows came"
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    assert time.monotonic() - asked < 5
    assert process.returncode == 130
    assert stdout == ""
    assert "rows.partial.jsonl" in stderr
    assert "Traceback" not in stderr
    assert all(json.loads(line) for line in partial.read_text().splitlines())


def test_standard_output_has_rows_and_nothing_else(
    clip: Path, detector: Detector, capfd: pytest.CaptureFixture[str]
) -> None:
    detect(CameraConfig(source=str(clip)), detector, SETTINGS)
    stdout, stderr = capfd.readouterr()
    assert len([json.loads(line) for line in stdout.splitlines()]) == FRAMES
    assert f"{FRAMES} frames" in stderr


def test_outputs_that_cannot_be(clip: Path, detector: Detector, tmp_path: Path) -> None:
    def attempt(source: Path, out: Path, video: Path | None = None) -> None:
        detect(CameraConfig(source=str(source)), detector, SETTINGS, Outputs("jsonl", out, video))

    with pytest.raises(UsageError, match="overwrite the source"):
        attempt(clip, tmp_path / "a", clip)
    with pytest.raises(UsageError, match="the same file"):
        attempt(clip, tmp_path / "a.mp4", tmp_path / "a.mp4")
    with pytest.raises(UsageError, match="no folder"):
        attempt(clip, tmp_path / "nowhere" / "a.jsonl")
    with pytest.raises(UsageError, match="a folder"):
        attempt(clip, tmp_path)
    with pytest.raises(SourceNotFound):
        attempt(tmp_path / "missing.mp4", tmp_path / "a.jsonl")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="overwrite the source"):
        detect(CameraConfig(source=f"file://{clip}"), detector, SETTINGS, Outputs("jsonl", clip))
    (tmp_path / "a.jpg").write_text("a picture")
    for pictures in (tmp_path, tmp_path / "*.jpg"):
        with pytest.raises(UsageError, match="overwrite the source"):
            attempt(pictures, tmp_path / "a.jpg")


def test_what_is_written_until_an_output_is_complete_is_refused_too(
    clip: Path, detector: Detector, tmp_path: Path
) -> None:
    source = tmp_path / "clip.partial.mp4"
    content = clip.read_bytes()
    source.write_bytes(content)
    (tmp_path / "linked.partial.mp4").hardlink_to(source)

    def attempt(out: Path, video: Path) -> None:
        detect(CameraConfig(source=str(source)), detector, SETTINGS, Outputs("jsonl", out, video))

    for name in ("clip.mp4", "linked.mp4"):
        with pytest.raises(UsageError, match="overwrite the source"):
            attempt(tmp_path / "rows", tmp_path / name)
        with pytest.raises(UsageError, match="overwrite the source"):
            attempt(tmp_path / name, tmp_path / "drawn.mp4")
    with pytest.raises(UsageError, match="the same file"):
        attempt(tmp_path / "a.partial.mp4", tmp_path / "a.mp4")
    assert source.read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("kind", ["jsonl", "mot", "coco"])
def test_a_disk_that_is_full_is_told(clip: Path, detector: Detector, tmp_path: Path, kind: Format) -> None:
    full = tmp_path / "rows.partial.txt"
    full.symlink_to("/dev/full")
    with pytest.raises(LookoutError, match=r"rows\.txt: cannot be written \(No space left on device\)"):
        detect(CameraConfig(source=str(clip)), detector, SETTINGS, Outputs(kind, tmp_path / "rows.txt"))
    assert list(tmp_path.iterdir()) == [full]


@pytest.mark.parametrize("name", ["drawn.partial.mp4", "drawn.partial-0001.mp4"])
def test_a_disk_that_is_full_for_the_video_is_told(
    clip: Path, detector: Detector, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(LookoutError, match=rf"{re.escape(name)}: cannot be written \(No space left"):
        detected(clip, detector, "jsonl", tmp_path / "rows", tmp_path / "drawn.mp4")
    assert not (tmp_path / "drawn.mp4").exists()
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize(
    ("stdout", "code", "said"),
    [(">/dev/full", 1, "cannot be written (No space left on device)"), (">&-", 2, "--out")],
)
def test_a_standard_output_that_takes_nothing_is_told(clip: Path, stdout: str, code: int, said: str) -> None:
    """The real command: Python writes what is left in ``sys.stdout`` as it ends."""
    main = f"'{sys.executable}' -c 'import sys; from stream.cli import main; sys.exit(main(sys.argv[1:]))'"
    finished = subprocess.run(
        f"{main} detect '{clip}' --threads 1 {stdout}",
        shell=True,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        timeout=60,
    )
    complaints = [line for line in finished.stderr.splitlines() if line.startswith("lookout: ")]
    assert finished.returncode == code, finished.stderr
    assert len(complaints) == 1
    assert complaints[0].startswith("lookout: standard output")
    assert said in complaints[0]
    assert "Traceback" not in finished.stderr
    assert "Exception ignored" not in finished.stderr


def test_odd_changing_and_jumping_pictures_make_one_video(tmp_path: Path) -> None:
    path = tmp_path / "odd.mp4"
    sizes = [(853, 481), (853, 481), (320, 240), (640, 480)]
    times = [5.0, 5.1, 5.1, 5.5]
    with annotated(path) as film:
        for index, ((width, height), time_s) in enumerate(zip(sizes, times, strict=True)):
            picture = VideoFrame.from_ndarray(np.full((height, width, 3), 90, np.uint8), format="rgb24")
            film.write(Frame(picture.reformat(format="yuv420p"), index, time_s, 0.0), Tracks.empty())
    with av.open(str(path)) as container:
        pictures = list(container.decode(video=0))
    assert [(picture.width, picture.height) for picture in pictures] == [(852, 480)] * 4
    shown = [picture.time for picture in pictures]
    assert shown == sorted(set(shown))
    assert shown[-1] == pytest.approx(0.5, abs=0.01)


def test_mot_keeps_every_class_where_there_is_no_person(tmp_path: Path) -> None:
    tracks = Tracks(
        np.array([[10, 20, 30, 60], [0, 0, 5, 5]], np.float32),
        np.array([0.5, 0.6], np.float32),
        np.array([1, 0]),
        np.array([4, 3]),
        np.ones(2, np.float32),
        np.array([False, True]),
    )
    frame = Frame(VideoFrame(64, 64, "yuv420p"), 6, 0.2, 0.0)
    for names, expected in (
        (("car", "bus"), "7,4,10.00,20.00,20.00,40.00,0.5000,-1,-1,-1\n"),
        (("person", "bus"), ""),
    ):
        path = tmp_path / "rows"
        with path.open("w") as file:
            writer = make_writer("mot", file, names)
            writer.write(frame, tracks)
            writer.finish()
        assert path.read_text() == expected


def test_no_frames_is_still_valid(tmp_path: Path) -> None:
    with opened("coco", tmp_path / "empty.json", ["person"]):
        pass
    empty = json.loads((tmp_path / "empty.json").read_text())
    assert (empty["images"], empty["annotations"]) == ([], [])


def test_the_progress_bar_knows_how_long(clip: Path, tmp_path: Path) -> None:
    assert frame_count(str(clip)) == FRAMES
    assert frame_count("rtsp://127.0.0.1/nothing") is None
    (tmp_path / "text.mp4").write_text("no video")
    assert frame_count(str(tmp_path / "text.mp4")) is None


def test_parts_of_a_file_add_up_to_all_of_it(clip: Path, detector: Detector, tmp_path: Path) -> None:
    """With the numbers and times of the file. Without tracking, which would begin anew in each part."""

    def rows(name: str, start_s: float = 0.0, end_s: float | None = None) -> list[str]:
        camera, out = CameraConfig(source=str(clip), start_s=start_s), tmp_path / name
        detect(camera, detector, SETTINGS, Outputs("jsonl", out, end_s=end_s, track=False))
        return out.read_text().splitlines()

    whole = rows("whole")
    assert len(whole) == FRAMES
    assert {box["id"] for line in whole for box in json.loads(line)["boxes"]} == {-1}
    assert rows("head", 0, 0.4) + rows("middle", 0.4, 1.0) + rows("tail", 1.0) == whole
    for end_s in (0.4, 0.3):
        with pytest.raises(UsageError, match="--end"):
            rows("none", 0.4, end_s)


def test_a_folder_of_pictures(clip: Path, detector: Detector, tmp_path: Path) -> None:
    """Each by itself and by name, as COCO JSON that ``lookout eval`` reads: it agrees with itself."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    with closing(open_source(str(clip), SourceOptions(pace="lossless"))) as source:
        for frame in itertools.islice(iter(source.read, None), 0, FRAMES, 8):
            frame.picture.to_image().save(folder / f"img{frame.index}.png")
    (folder / "img9.png").write_text("no picture")
    out, video = tmp_path / "found.json", tmp_path / "drawn.mp4"
    detect(CameraConfig(source=str(folder)), detector, SETTINGS, Outputs("coco", out, video))
    found = json.loads(out.read_text())
    names = [f"img{index}.png" for index in (0, 8, 16, 24, 32)]
    assert [image["file_name"] for image in found["images"]] == names
    assert [image["id"] for image in found["images"]] == [1, 2, 4, 5, 6], "the third is none"
    assert {row["track_id"] for row in found["annotations"]} == {-1}
    with av.open(str(video)) as container:
        assert [picture.time for picture in container.decode(video=0)] == [0, 1, 3, 4, 5]

    metrics = evaluate(detector, out, folder, 0.3)
    assert metrics.AP50 > 0.9
    assert metrics.AP > 0.7

    lines = tmp_path / "found.jsonl"
    detect(
        CameraConfig(source=str(folder / "img*.png"), start_s=1), detector, SETTINGS, Outputs("jsonl", lines)
    )
    read = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [(line["index"], line["file"]) for line in read] == list(zip((1, 3, 4, 5), names[1:], strict=True))
    assert frame_count(str(folder)) == 6
