"""How well detections are followed, and at what cost: HOTA, MOTA and IDF1 by TrackEval, milliseconds a frame.

On annotated sequences in MOTChallenge's form (rules of MOT15: rows marked 0 are left out, no preprocessing) with the
detections that lie beside them, on every frame and on every third; and on made worlds (``worlds.py``). One set of
parameters for all: the defaults. Other trackers get the same detections in the same run, where an interpreter
that has them is given (``tracker_peers.py``).
"""

from __future__ import annotations

import configparser
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from stream.bench import tracker_peers, worlds
from stream.bench.worlds import Moment
from stream.errors import UsageError
from stream.frames import Detections, Tracks
from stream.tracking import Tracker, View
from stream.tracking.association import overlaps
from stream.tracking.camera_motion import CameraMotion

STRIDES = (1, 3)
WORLD_RATES = (5, 25, 60)
OBJECTS = (5, 10, 50, 200, 400)
TIMED_FRAMES = 200
METRICS = ("HOTA", "MOTA", "IDF1")

Floats = npt.NDArray[np.float64]
Say = Callable[[str], None]
Found = Sequence[tuple[list[int], Floats]]
"""Of each frame the ids and the boxes xyxy (N, 4) of what was followed."""


@dataclass(frozen=True, slots=True)
class Case:
    """Detections of a picture after another, and the truth."""

    name: str
    width: int
    height: int
    fps: float
    """Of these frames."""
    moments: list[Moment]


def run(data: Path | None, peers: str | None = None, say: Say = print) -> dict[str, Any]:
    """Follow everything, judge it, and take the time.

    Args:
        data: a folder of sequences; without it, made worlds only.
        peers: a Python that has other trackers (``trackers``, ``norfair``).
        say: takes the table.

    Returns:
        ``scores`` by ``sequence/detections/stride``, ``ms_per_frame`` by number of objects, and under ``peers`` the
        same of every other tracker; ``camera_motion_ms``: of looking whether a camera of 1280x720 moved.

    Raises:
        UsageError: TrackEval is missing, or ``data`` has no sequences.
    """
    _metrics()
    cases = [] if data is None else read_cases(data)
    cases += [made(kind, fps) for kind in worlds.KINDS for fps in WORLD_RATES]
    timed = [_busy(count) for count in OBJECTS]
    figures: dict[str, Any] = {
        "scores": {case.name: score(case, followed(case)) for case in cases},
        "ms_per_frame": {name.name: round(_ms(name), 3) for name in timed},
        "camera_motion_ms": {
            how: round(_camera_ms(shift), 3) for how, shift in (("still", 0), ("moving", 12))
        },
    }
    if peers is not None:
        figures["peers"] = _peers(peers, cases, timed)
    say(_table({"lookout": figures, **figures.get("peers", {})}))
    return figures


def _table(figures: dict[str, dict[str, Any]]) -> str:
    """HOTA / MOTA / IDF1 of each case, and milliseconds a frame, by tracker."""
    table = Table("HOTA / MOTA / IDF1", *figures, box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    ours = figures["lookout"]
    for case in ours["scores"]:
        scores = [each["scores"][case] for each in figures.values()]
        table.add_row(case, *(" / ".join(f"{score[name]:.1f}" for name in METRICS) for score in scores))
    for count in ours["ms_per_frame"]:
        spent = [each["ms_per_frame"][count] for each in figures.values()]
        table.add_row(f"{count} objects, ms a frame", *(f"{ms:.2f}" for ms in spent))
    for how, ms in ours["camera_motion_ms"].items():
        table.add_row(f"is the camera moving, {how}, ms", f"{ms:.2f}")
    drawn = StringIO()
    Console(width=160, file=drawn).print(table)
    return drawn.getvalue()


def read_cases(data: Path) -> list[Case]:
    """The sequences of a folder, with each of their detections, at every stride.

    Raises:
        UsageError: there are none.
    """
    cases = []
    for ini in sorted(data.glob("*/seqinfo.ini")):
        folder = ini.parent
        for file in sorted([*folder.glob("*det.txt"), *folder.glob("det/det.txt")]):
            cases += [read_case(folder, file, stride) for stride in STRIDES]
    if not cases:
        raise UsageError(
            f"{data} has no sequences: expected folders with seqinfo.ini, gt.txt (or gt/gt.txt) and det.txt "
            "(or det/det.txt), as MOTChallenge has them"
        )
    return cases


def read_case(folder: Path, detections: Path, stride: int) -> Case:
    """Every frame, or every ``stride``-th, of a sequence."""
    about = configparser.ConfigParser()
    try:
        about.read(folder / "seqinfo.ini")
        fps = float(about["Sequence"]["frameRate"])
        width, height, length = (int(about["Sequence"][key]) for key in ("imWidth", "imHeight", "seqLength"))
    except (configparser.Error, KeyError, ValueError) as error:
        raise UsageError(
            f"{folder / 'seqinfo.ini'}: expected a section [Sequence] with frameRate, imWidth, imHeight and "
            f"seqLength as numbers ({type(error).__name__}: {error})"
        ) from error
    truth_file = next((file for file in (folder / "gt.txt", folder / "gt" / "gt.txt") if file.exists()), None)
    if truth_file is None:
        raise UsageError(f"{folder} has no gt.txt; expected it there or in gt/")
    found, truth = _rows(detections), _rows(truth_file)
    truth = truth[truth[:, 6] != 0]
    name = detections.stem.removesuffix("_det")
    return Case(
        f"{folder.name}/{name}/{stride}",
        width,
        height,
        fps / stride,
        [
            _moment(frame / fps, found[found[:, 0] == frame], truth[truth[:, 0] == frame])
            for frame in range(1, length + 1, stride)
        ],
    )


def made(kind: str, fps: float, seed: int = 0) -> Case:
    """A made world."""
    return Case(
        f"{kind}/made/{fps:g}fps", worlds.WIDTH, worlds.HEIGHT, fps, list(worlds.world(kind, fps, seed=seed))
    )


def followed(case: Case, tracker: Tracker | None = None) -> Found:
    """What the tracker says of every frame, of what it sees in it."""
    tracker, view = tracker or Tracker(), View(case.width, case.height)
    return [_seen(tracker.update(moment.detections, moment.time_s, view)) for moment in case.moments]


def score(case: Case, found: Found) -> dict[str, float]:
    """HOTA (Luiten et al., IJCV 2021), MOTA and IDF1 in percent, and how often an object's id changed."""
    hota, clear, identity = _metrics()
    data = _for_trackeval(case.moments, found)
    kinds = clear.eval_sequence(data)
    return {
        "HOTA": round(100 * float(hota.eval_sequence(data)["HOTA"].mean()), 1),
        "MOTA": round(100 * float(kinds["MOTA"]), 1),
        "IDF1": round(100 * float(identity.eval_sequence(data)["IDF1"]), 1),
        "IDSW": int(kinds["IDSW"]),
    }


def _seen(tracks: Tracks) -> tuple[list[int], Floats]:
    return tracks.ids[~tracks.coasting].tolist(), tracks.boxes[~tracks.coasting].astype(np.float64)


def _rows(file: Path) -> Floats:
    try:
        rows = np.loadtxt(file, delimiter=",", ndmin=2)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: is no MOTChallenge file ({error})") from error
    if rows.shape[1] < 7:
        raise UsageError(
            f"{file}: has {rows.shape[1]} columns, expected frame, id, left, top, width, height, confidence"
        )
    return rows


def _moment(time_s: float, found: Floats, truth: Floats) -> Moment:
    boxes, real = (np.concatenate([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]], 1) for rows in (found, truth))
    return Moment(
        time_s,
        Detections(boxes.astype(np.float32), found[:, 6].astype(np.float32), np.zeros(len(found), np.int64)),
        truth[:, 1].astype(np.int64),
        real,
    )


def _metrics() -> tuple[Any, Any, Any]:
    try:
        with redirect_stdout(StringIO()):  # it says what of it cannot be imported
            from trackeval.metrics import CLEAR, HOTA, Identity
    except ModuleNotFoundError as error:
        raise UsageError(
            f"bench tracker needs TrackEval ({error.name} is missing): pip install --no-deps trackeval==1.3.0 (what it "
            "asks for besides would replace lookout's OpenCV)"
        ) from error
    quiet = {"PRINT_CONFIG": False}
    return HOTA(), CLEAR(quiet), Identity(quiet)


def _for_trackeval(moments: Sequence[Moment], found: Found) -> dict[str, Any]:
    """As its metrics want them: ids counted from 0, the overlap of every pair."""
    real_ids = _numbered(moment.ids.tolist() for moment in moments)
    own_ids = _numbered(ids for ids, _ in found)
    return {
        "gt_ids": [np.array([real_ids[i] for i in moment.ids.tolist()], int) for moment in moments],
        "tracker_ids": [np.array([own_ids[i] for i in ids], int) for ids, _ in found],
        "similarity_scores": [
            overlaps(moment.boxes, boxes) for moment, (_, boxes) in zip(moments, found, strict=True)
        ],
        "num_gt_dets": sum(len(moment.ids) for moment in moments),
        "num_tracker_dets": sum(len(ids) for ids, _ in found),
        "num_gt_ids": len(real_ids),
        "num_tracker_ids": len(own_ids),
        "num_timesteps": len(moments),
    }


def _numbered(ids: Iterable[list[int]]) -> dict[int, int]:
    return {each: number for number, each in enumerate(sorted({each for some in ids for each in some}))}


def _busy(count: int) -> Case:
    """So many people who walk about in a picture large enough for all of them."""
    rng = np.random.default_rng(count)
    side = 200.0 * count**0.5
    start, speed = rng.uniform(0, side, (count, 2)), rng.normal(0, 30, (count, 2))
    moments = []
    for frame in range(TIMED_FRAMES):
        corners = start + speed * frame / 25
        boxes = np.concatenate([corners, corners + np.array([40, 100])], 1) + rng.normal(0, 1, (count, 4))
        sure = rng.uniform(0.6, 0.95, count).astype(np.float32)
        detections = Detections(boxes.astype(np.float32), sure, np.zeros(count, np.int64))
        moments.append(Moment(frame / 25, detections, np.arange(count), boxes))
    return Case(str(count), int(side) + 100, int(side) + 100, 25.0, moments)


def _ms(case: Case) -> float:
    """Median of a frame."""
    tracker, view, spent = Tracker(), View(case.width, case.height), []
    for moment in case.moments:
        started = perf_counter()
        tracker.update(moment.detections, moment.time_s, view)
        spent.append(1000 * (perf_counter() - started))
    return median(spent)


def _camera_ms(shift: int) -> float:
    """Median of a picture that is ``shift`` pixels beside the one before it."""
    noise = np.random.default_rng(0).integers(0, 255, (720, 1280), np.uint8)
    picture = cv2.GaussianBlur(noise, (0, 0), 3).astype(np.uint8, copy=False)
    pictures, camera, spent = (picture, np.roll(picture, shift, 1)), CameraMotion(), []
    for frame in range(TIMED_FRAMES):
        started = perf_counter()
        camera.look(pictures[frame % 2], np.zeros((0, 4)))
        spent.append(1000 * (perf_counter() - started))
    return median(spent)


def _peers(python: str, cases: Sequence[Case], timed: Sequence[Case]) -> dict[str, Any]:
    """Every other tracker's figures, from a process of the interpreter that has them."""
    figures: dict[str, Any] = {}
    with TemporaryDirectory(prefix="lookout-peers-") as folder:
        everything = [*cases, *timed]
        for number, case in enumerate(everything):
            np.savez(Path(folder, f"{number}.npz"), **_as_arrays(case))
        for peer in _ran(python, Path(folder)):
            for number, case in enumerate(everything):
                _add(
                    figures.setdefault(peer, {}),
                    case,
                    number >= len(cases),
                    Path(folder, f"{number}-{peer}.npz"),
                )
    return figures


def _ran(python: str, folder: Path) -> list[str]:
    """The trackers that followed everything in the folder."""
    try:
        done = subprocess.run(
            [python, tracker_peers.__file__, str(folder)], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise UsageError(f"--peers: {python} cannot be run ({error.strerror}); give a Python") from error
    if done.returncode:
        last = (done.stderr.splitlines() or ["it said nothing"])[-1]
        raise UsageError(f"--peers: {python} could not run the other trackers: {last}")
    if not done.stdout.split():
        raise UsageError(f"--peers: {python} has no other trackers: {python} -m pip install trackers norfair")
    return done.stdout.split()


def _add(figures: dict[str, Any], case: Case, timed: bool, file: Path) -> None:
    with np.load(file) as told:
        if timed:
            figures.setdefault("ms_per_frame", {})[case.name] = round(float(told["ms"]), 3)
            return
        rows = [told["frames"] == number for number in range(len(case.moments))]
        found = [(told["ids"][these].tolist(), told["boxes"][these]) for these in rows]
    figures.setdefault("scores", {})[case.name] = score(case, found)


def _as_arrays(case: Case) -> Mapping[str, Any]:
    frames = [np.full(len(moment.detections), number) for number, moment in enumerate(case.moments)]
    return {
        "fps": case.fps,
        "times": np.array([moment.time_s for moment in case.moments]),
        "frames": np.concatenate(frames),
        "boxes": np.concatenate([moment.detections.boxes for moment in case.moments]),
        "scores": np.concatenate([moment.detections.scores for moment in case.moments]),
    }
