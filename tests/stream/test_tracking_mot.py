"""The tracker against ground truth, one set of parameters for all; and the benchmark that measures it.

The floors are what the best of 26 public trackers' configurations reached on the same detections, or more: they fail
when tracking gets worse.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from stream.bench import tracker as bench
from stream.errors import UsageError
from stream.tracking import Tracker, View

trackeval = pytest.importorskip("trackeval", reason="needs TrackEval: pip install --no-deps trackeval")

PETS, CAMPUS = "PETS09-S2L1", "TUD-Campus"


@pytest.mark.parametrize(
    ("sequence", "detections", "stride", "hota", "mota", "idf1"),
    [
        (PETS, "yolox_nano_det", 1, 53.5, 79.5, 71),
        (PETS, "yolox_nano_det", 3, 54, 77, 69),
        (PETS, "det", 1, 42, 63.2, 58),
        (CAMPUS, "yolox_nano_det", 1, 53, 67.4, 76),
        (CAMPUS, "det", 1, 53.4, 63.2, 74.5),
    ],
)
def test_tracks_agree_with_the_truth(
    shared: Path, sequence: str, detections: str, stride: int, hota: float, mota: float, idf1: float
) -> None:
    folder = shared / "data" / "mot" / sequence
    case = bench.read_case(folder, folder / f"{detections}.txt", stride)
    scores = bench.score(case, bench.followed(case))
    print(case.name, scores)
    assert scores["HOTA"] >= hota
    assert scores["MOTA"] >= mota
    assert scores["IDF1"] >= idf1


@pytest.mark.parametrize("kind", ["crossing", "occlusion", "stop-and-go", "crowd"])
def test_dropping_frames_degrades_gently(kind: str) -> None:
    """The same walks at 60 and at 5 frames a second: what is lost is bounded, whatever happens in them."""
    least = {"crossing": 85, "occlusion": 50, "stop-and-go": 75, "crowd": 65}[kind]
    for fps in (5, 60):
        case = bench.made(kind, fps)
        scores = bench.score(case, bench.followed(case))
        print(case.name, scores)
        assert scores["IDF1"] >= least


def test_scores_are_those_that_trackeval_reads_from_files(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "mot" / CAMPUS
    case = bench.read_case(folder, folder / "det.txt", 1)
    found = bench.followed(case)
    truth, told = tmp_path / "gt" / CAMPUS / "gt" / "gt.txt", tmp_path / "told" / "lookout" / "data"
    for path in (truth.parent, told):
        path.mkdir(parents=True)
    truth.write_bytes((folder / "gt.txt").read_bytes())
    rows = [
        f"{frame},{id_},{x1},{y1},{x2 - x1},{y2 - y1},1,-1,-1,-1\n"
        for frame, (ids, boxes) in enumerate(found, 1)
        for id_, (x1, y1, x2, y2) in zip(ids, boxes.tolist(), strict=True)
    ]
    (told / f"{CAMPUS}.txt").write_text("".join(rows))
    dataset = trackeval.datasets.MotChallenge2DBox(
        {
            "GT_FOLDER": str(tmp_path / "gt"),
            "TRACKERS_FOLDER": str(tmp_path / "told"),
            "SEQ_INFO": {CAMPUS: len(case.moments)},
            "BENCHMARK": "MOT15",
            "SKIP_SPLIT_FOL": True,
            "PRINT_CONFIG": False,
        }
    )
    data = dataset.get_preprocessed_seq_data(dataset.get_raw_seq_data("lookout", CAMPUS), "pedestrian")
    scores = bench.score(case, found)
    for metric, name in (("HOTA", "HOTA"), ("CLEAR", "MOTA"), ("Identity", "IDF1")):
        kind = getattr(trackeval.metrics, metric)
        judge = kind() if metric == "HOTA" else kind({"PRINT_CONFIG": False})
        assert scores[name] == pytest.approx(100 * np.mean(judge.eval_sequence(data)[name]), abs=0.051)


def test_the_same_detections_give_the_same_ids_whatever_is_asked_in_between() -> None:
    case = bench.made("crowd", 5)
    asked, view = Tracker(), View(case.width, case.height)
    for moment, (ids, boxes) in zip(case.moments, bench.followed(case), strict=True):
        tracks = asked.update(moment.detections, moment.time_s, view)
        assert tracks.ids[~tracks.coasting].tolist() == ids
        np.testing.assert_array_equal(tracks.boxes[~tracks.coasting], boxes)
        asked.predict(moment.time_s + 0.1)
        asked.everything()


def test_a_folder_without_sequences_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no sequences: expected folders with seqinfo\.ini"):
        bench.read_cases(tmp_path)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "seqinfo.ini").write_text("[Sequence]\nframeRate=fast\n")
    (tmp_path / "one" / "det.txt").write_text("1,-1,10,10,20,40,0.9\n")
    with pytest.raises(UsageError, match=r"seqinfo\.ini: expected a section \[Sequence\]"):
        bench.read_cases(tmp_path)
    about = "[Sequence]\nframeRate=7\nseqLength=1\nimWidth=100\nimHeight=100\n"
    (tmp_path / "one" / "seqinfo.ini").write_text(about)
    with pytest.raises(UsageError, match=r"has no gt\.txt"):
        bench.read_cases(tmp_path)
    (tmp_path / "one" / "gt.txt").write_text("1,1,ten\n")
    with pytest.raises(UsageError, match="is no MOTChallenge file"):
        bench.read_cases(tmp_path)


def test_a_python_without_other_trackers_is_told() -> None:
    with pytest.raises(UsageError, match="cannot be run"):
        bench._peers("/no/such/python", [], [])
    with pytest.raises(UsageError, match="has no other trackers"):
        bench._peers(sys.executable, [], [])


def test_detections_of_a_frame_are_that_frames(tmp_path: Path) -> None:
    (tmp_path / "seqinfo.ini").write_text("[Sequence]\nframeRate=10\nseqLength=7\nimWidth=100\nimHeight=80\n")
    (tmp_path / "gt.txt").write_text("1,3,10,20,30,40,1\n4,3,12,20,30,40,0\n")
    (tmp_path / "det.txt").write_text("4,-1,12,20,30,40,0.9\n7,-1,50,20,30,40,0.8\n")
    case = bench.read_case(tmp_path, tmp_path / "det.txt", 3)
    assert (case.width, case.height, case.fps) == (100, 80, pytest.approx(10 / 3))
    assert [moment.time_s for moment in case.moments] == pytest.approx([0.1, 0.4, 0.7])
    assert [moment.ids.tolist() for moment in case.moments] == [[3], [], []], "marked 0: left out"
    assert case.moments[0].boxes.tolist() == [[10, 20, 40, 60]]
    found = [moment.detections.boxes.tolist() for moment in case.moments]
    assert found == [[], [[12, 20, 42, 60]], [[50, 20, 80, 60]]]
