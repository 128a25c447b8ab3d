"""``lookout detect --resume``: whatever ended a run, the next one ends up with the very same files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import pytest
from av import VideoFrame

from stream import resume, video_file
from stream.config import CameraConfig, DetectorConfig
from stream.detector import Detector
from stream.errors import UsageError
from stream.frames import Detections
from stream.offline import Outputs, Summary, detect
from stream.writers import Format, partial_path
from tests.stream.clips import people

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 30
SETTINGS = DetectorConfig()


@pytest.fixture(scope="module")
def clip(bikes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures 115 to 144 of the clip, people on bicycles; it has B-pictures."""
    return people(tmp_path_factory.mktemp("clip") / "short.mp4", bikes, FRAMES, "veryfast")


@pytest.fixture
def always_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "SAVE_EVERY_S", 0.0)


class Stops:
    """A detector in whose work the run is cut short after some frames."""

    def __init__(self, detector: Detector, after: int) -> None:
        self._detector, self._left = detector, after

    def detect(self, pictures: list[VideoFrame], score_threshold: float) -> list[Detections]:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        return self._detector.detect(pictures, score_threshold)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._detector, name)


def cut_short(clip: Path, detector: Detector, outputs: Outputs, after: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        detect(CameraConfig(source=str(clip)), Stops(detector, after), SETTINGS, outputs)  # type: ignore[arg-type]


def go_on(clip: Path, detector: Detector, outputs: Outputs) -> Summary:
    return detect(CameraConfig(source=str(clip)), detector, SETTINGS, outputs)


def test_a_killed_command_goes_on(bikes: Path, detector: Detector, tmp_path: Path) -> None:
    """The real command, and kill -9 while it works."""
    whole, out = tmp_path / "whole.json", tmp_path / "rows.json"
    code = "from stream import cli, resume; resume.SAVE_EVERY_S = 0; raise SystemExit(cli.main())"
    command = [sys.executable, "-c", code, "detect", str(bikes), "--format", "coco", "--threads", "1"]
    command += ["--device", "cpu", "--start", "5", "--end", "8", "--out"]
    process = subprocess.Popen([*command, str(out)], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    deadline, done = time.monotonic() + 60, 0
    while done < 20:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        if resume.state_path(out).exists():
            done = json.loads(resume.state_path(out).read_text())["frames"]
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert not out.exists()

    again = subprocess.run(
        [*command, str(out), "--resume"], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert again.returncode == 0, again.stderr
    assert "75 frames" in again.stderr
    assert int(again.stderr.partition(" of them before")[0].split()[-1]) >= done
    camera = CameraConfig(source=str(bikes), start_s=5)
    detect(camera, detector, SETTINGS, Outputs("coco", whole, end_s=8))
    assert out.read_bytes() == whole.read_bytes()
    content = json.loads(out.read_text())
    assert [image["id"] for image in content["images"]] == list(range(126, 201)), "numbers of the whole file"
    assert len(content["annotations"]) > 10
    assert {path.name for path in tmp_path.iterdir()} == {"whole.json", "rows.json"}


@pytest.mark.usefixtures("always_saved")
@pytest.mark.parametrize("kind", ["jsonl", "mot", "coco"])
def test_cut_short_again_and_again(clip: Path, detector: Detector, tmp_path: Path, kind: Format) -> None:
    whole, out = tmp_path / "whole", tmp_path / "rows.x"
    go_on(clip, detector, Outputs(kind, whole))
    cut_short(clip, detector, Outputs(kind, out), 7)
    with partial_path(out).open("a") as file:
        file.write("half a li")  # as a kill would leave it
    for after in (0, 9):
        cut_short(clip, detector, Outputs(kind, out, resume=True), after)
    summary = go_on(clip, detector, Outputs(kind, out, resume=True))
    assert (summary.frames, summary.before) == (FRAMES, 16)
    assert out.read_bytes() == whole.read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.usefixtures("always_saved")
def test_the_video_goes_on_too(
    clip: Path, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_file, "SEGMENT_FRAMES", 8)
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole, cut = (
        Outputs("jsonl", tmp_path / name / "rows", tmp_path / name / "drawn.mp4") for name in ("whole", "cut")
    )
    go_on(clip, detector, whole)
    cut_short(clip, detector, cut, 20)
    again = Outputs("jsonl", cut.out, cut.video, resume=True)
    segment = tmp_path / "cut" / "drawn.partial-0002.mp4"
    segment.rename(tmp_path / "kept")
    with pytest.raises(UsageError, match=r"drawn\.partial-0002\.mp4: is gone"):
        go_on(clip, detector, again)
    (tmp_path / "kept").rename(segment)
    summary = go_on(clip, detector, again)
    assert summary.before == 16, "two segments"
    assert packets(cut.video) == packets(whole.video)
    with av.open(str(cut.video)) as container:
        times = [picture.time for picture in container.decode(video=0)]
    assert times == pytest.approx([index / 25 for index in range(FRAMES)], abs=1e-3)
    for name in ("whole", "cut"):
        assert {path.name for path in (tmp_path / name).iterdir()} == {"rows", "drawn.mp4"}
    assert (tmp_path / "cut" / "rows").read_bytes() == (tmp_path / "whole" / "rows").read_bytes()


def packets(path: Path | None) -> list[tuple[int | None, int | None, bytes]]:
    with av.open(str(path)) as container:
        return [(packet.pts, packet.dts, bytes(packet)) for packet in container.demux(video=0)]


@pytest.mark.usefixtures("always_saved")
def test_another_run_is_not_gone_on_with(clip: Path, detector: Detector, tmp_path: Path) -> None:
    source, out = tmp_path / "clip.mp4", tmp_path / "rows"
    source.write_bytes(clip.read_bytes())
    cut_short(source, detector, Outputs("jsonl", out), 5)
    state, rows = resume.state_path(out), partial_path(out)

    def refused(outputs: Outputs, match: str, settings: DetectorConfig = SETTINGS) -> None:
        with pytest.raises(UsageError, match=match):
            detect(CameraConfig(source=str(source)), detector, settings, outputs)

    again = Outputs("jsonl", out, resume=True)
    refused(again, r"score threshold was 0\.3 and is 0\.5 now", DetectorConfig(score_threshold=0.5))
    refused(Outputs("mot", out, resume=True), "format was jsonl and is mot")
    refused(Outputs("jsonl", out, track=False, resume=True), "tracking was on and is off")
    refused(Outputs("jsonl", out, end_s=1, resume=True), "end was that of the source and is 1 s")
    refused(Outputs("jsonl", None, resume=True), "--out")
    os.utime(source, (1, 1))
    refused(again, "the source was .* and is .* now")
    os.utime(source, ns=(1, 1))
    source.unlink()
    source.write_bytes(clip.read_bytes())

    cut_short(source, detector, Outputs("jsonl", out), 5)
    content = rows.read_bytes()
    rows.write_bytes(content[:-1])
    refused(again, "is shorter than .* says")
    rows.write_bytes(content)
    saved = state.read_text()
    for bad in (
        "",
        "[]",
        '{"run": {}}',
        saved.replace('"rows"', '"lines"'),
        saved.replace('"next_id"', '"id"'),
    ):
        state.write_text(bad)
        refused(again, "is not the state of a run")
    state.write_text(saved)
    assert go_on(source, detector, again).frames == FRAMES, "it is as it was"


def test_nothing_to_go_on_with_begins_anew(clip: Path, detector: Detector, tmp_path: Path) -> None:
    summary = go_on(clip, detector, Outputs("jsonl", tmp_path / "rows", resume=True))
    assert (summary.frames, summary.before) == (FRAMES, 0)
    camera = CameraConfig(source="synthetic:320x240@30")
    with pytest.raises(UsageError, match="only a run over a file or pictures can be resumed"):
        detect(camera, detector, SETTINGS, Outputs("jsonl", tmp_path / "rows", resume=True))
