"""The tracker on made worlds with known truth, and on nonsense."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stream.frames import Detections, Tracks, TrackState
from stream.tracking import LifeParameters, Tracker, TrackerParameters, View


def seen(*boxes: tuple[float, float, float, float], score: float = 0.9, label: int = 0) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(len(boxes), score, np.float32),
        np.full(len(boxes), label, np.int64),
    )


def walker(x: float, y: float = 100.0) -> tuple[float, float, float, float]:
    return (x - 20, y, x + 20, y + 100)


def run(tracker: Tracker, x: float, speed: float, start_s: float, end_s: float, fps: float = 10.0) -> Tracks:
    """Feed one walker, at ``x`` at time 0, from ``start_s`` to before ``end_s``."""
    tracks = Tracks.empty()
    for frame in range(round(start_s * fps), round(end_s * fps)):
        tracks = tracker.update(seen(walker(x + speed * frame / fps)), frame / fps)
    return tracks


def test_an_object_keeps_its_id_and_ages() -> None:
    tracks = run(Tracker(), 100, 40, 0, 5)
    assert tracks.ids.tolist() == [1]
    assert not tracks.coasting.any()
    assert tracks.ages_s[0] == pytest.approx(4.9, abs=1e-3)
    np.testing.assert_allclose(tracks.boxes[0], walker(100 + 40 * 4.9), atol=2.0)
    assert tracks.boxes.dtype == np.float32
    assert tracks.ids.dtype == tracks.classes.dtype == np.int64


@pytest.mark.parametrize("fps", [1, 5, 15, 60])
def test_four_walkers_keep_four_ids_at_any_frame_rate(fps: int) -> None:
    """Two pairs walk through each other; one in ten detections is missing. Speeds are in pixels a second."""
    rng = np.random.default_rng(fps)
    tracker = Tracker()
    owners: dict[int, set[int]] = {}
    for frame in range(12 * fps):
        time_s = frame / fps
        truth = [walker(100 + 40 * time_s), walker(580 - 40 * time_s)]
        truth += [walker(200 + 30 * time_s, 300), walker(560 - 30 * time_s, 330)]
        there = [index for index in range(4) if rng.uniform() > 0.1]
        noise = rng.normal(0, 1.5, (len(there), 4))
        boxes = np.array([truth[index] for index in there]).reshape(-1, 4) + noise
        tracks = tracker.update(seen(*map(tuple, boxes)), time_s)
        for track_id, box, coasting in zip(tracks.ids.tolist(), tracks.boxes, tracks.coasting, strict=True):
            distances = np.array([np.abs(box - np.array(target)).max() for target in truth])
            if not coasting and distances.min() < 15 and (distances < 30).sum() == 1:
                owners.setdefault(int(distances.argmin()), set()).add(track_id)
    assert sorted(owners) == [0, 1, 2, 3]
    assert all(len(ids) == 1 for ids in owners.values()), owners
    assert set.union(*owners.values()) == {1, 2, 3, 4}


def test_an_unseen_object_coasts_then_hides_and_returns_with_its_id() -> None:
    tracker = Tracker()
    run(tracker, 100, 50, 0, 3)
    coasting = tracker.update(Detections.empty(), 3.2)
    assert coasting.coasting.tolist() == [True]
    np.testing.assert_allclose(coasting.boxes[0], walker(260), atol=6.0)
    for frame in range(33, 41):
        hidden = tracker.update(Detections.empty(), frame / 10)
    assert len(hidden) == 0
    back = tracker.update(seen(walker(100 + 50 * 4.2)), 4.2)
    assert back.ids.tolist() == [1]
    assert back.coasting.tolist() == [False]


def test_every_state_of_a_life_and_what_is_told_of_it() -> None:
    tracker = Tracker()
    told: list[tuple[str, float]] = []
    states: list[str] = []
    for frame in range(80):
        there = 10 <= frame < 30 or frame == 33
        tracker.update(seen(walker(100), score=0.8) if there else Detections.empty(), frame / 10)
        told += [(event.kind, round(event.time_s, 3)) for event in tracker.events]
        tracks, codes = tracker.everything()
        assert tracks.ids.tolist() in ([], [1])
        state = TrackState(codes[0]).name if len(codes) else "none"
        states += [state] if [state] != states[-1:] else []
    assert states == ["none", "TENTATIVE", "CONFIRMED", "COASTING", "CONFIRMED", "COASTING", "LOST", "none"]
    assert told == [("entered", 1.1), ("left", 3.3)], "when it was confirmed, and last seen"


def test_who_was_never_shown_neither_enters_nor_leaves() -> None:
    tracker = Tracker()
    for frame in range(30):
        tracker.update(seen(walker(100), score=0.76) if frame == 3 else Detections.empty(), frame / 10)
        assert tracker.events == ()


def test_a_picture_of_another_kind_is_left_by_all() -> None:
    tracker = Tracker()
    run(tracker, 100, 0, 0, 2)
    tracker.clear()
    assert [(event.kind, event.id, event.class_) for event in tracker.events] == [("left", 1, 0)]
    assert run(tracker, 100, 0, 2, 3).ids.tolist() == [2]


@pytest.mark.parametrize(("width", "gone"), [(330, True), (2000, False)])
def test_who_walks_out_of_the_picture_is_gone_and_who_hides_in_it_is_not(width: int, gone: bool) -> None:
    """Walks to the right until x is 300, and is not seen from then on."""
    tracker, view = Tracker(), View(width, 300)
    for frame in range(20):
        tracker.update(seen(walker(110 + 10 * frame)), frame / 10, view)
    for frame in range(20, 30):
        tracker.update(Detections.empty(), frame / 10, view)
    assert [event.kind for event in tracker.events] == []
    assert (len(tracker.everything()[0]) == 0) == gone


def test_a_second_box_around_an_object_is_no_second_object() -> None:
    tracker = Tracker()
    for frame in range(10):
        tracks = tracker.update(seen(walker(100), walker(112)), frame / 10)
        assert tracks.ids.tolist() == [1]
    tracks = tracker.update(
        Detections(
            np.array([walker(100), walker(112)], np.float32), np.full(2, 0.9, np.float32), np.array([0, 1])
        ),
        1.0,
    )
    assert tracks.ids.tolist() == [1, 2], "one of another class is"


def test_it_goes_on_from_its_state_as_if_it_had_never_ended() -> None:
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 255, (90, 160), np.uint8).repeat(8, 0).repeat(8, 1) for _ in range(2)]
    one, other = Tracker(), Tracker()
    for frame in range(40):
        boxes = [walker(100 + 9 * frame), walker(500 - 7 * frame, 130), walker(240, 90)][: 1 + frame % 3]
        view = View(1280, 720, np.roll(pictures[frame // 20], 8 * frame, 1))
        tracks = one.update(seen(*boxes), frame / 10, view)
        resumed = Tracker()
        resumed.restore(json.loads(json.dumps(other.state())))
        other = resumed
        same = other.update(seen(*boxes), frame / 10, view)
        np.testing.assert_array_equal(tracks.boxes, same.boxes)
        np.testing.assert_array_equal(tracks.ids, same.ids)
    for damaged in ({}, {**one.state(), "tracks": {"ids": [1]}}, {**one.state(), "camera": {"size": [1, 2]}}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            Tracker().restore(damaged)


def test_an_id_is_never_reused() -> None:
    tracker = Tracker()
    assert run(tracker, 100, 0, 0, 1).ids.tolist() == [1]
    assert len(tracker.update(Detections.empty(), 60.0)) == 0
    assert run(tracker, 100, 0, 61, 62).ids.tolist() == [2]
    assert run(Tracker(), 100, 0, 0, 1).ids.tolist() == [1], "ids belong to a tracker, not to the class"


def test_an_unsure_detection_continues_a_track_but_starts_none() -> None:
    tracker = Tracker()
    for frame in range(10):
        assert len(tracker.update(seen(walker(100), score=0.2), frame / 10)) == 0
    run(tracker, 100, 0, 1, 2)
    for frame in range(20, 60):
        tracks = tracker.update(seen(walker(100), score=0.2), frame / 10)
        assert tracks.ids.tolist() == [1]
        assert not tracks.coasting.any()
        assert tracks.scores[0] == pytest.approx(0.2)
    ignored = tracker.update(seen(walker(100), score=TrackerParameters().low_score / 2), 6.0)
    assert ignored.coasting.all()


def test_one_flicker_is_not_an_object() -> None:
    tracker = Tracker()
    assert len(tracker.update(seen(walker(100), score=0.75), 0.0)) == 0
    for frame in range(1, 20):
        assert len(tracker.update(Detections.empty(), frame / 10)) == 0


def test_a_track_has_one_class() -> None:
    tracker = Tracker()
    labels = [2, 2, 2, 7, 2, 2, 7, 7, 2, 2]
    for frame, label in enumerate(labels):
        tracks = tracker.update(seen(walker(100), label=label), frame / 10)
        assert tracks.classes.tolist() == [2]
        assert tracks.ids.tolist() == [1]
    for frame in range(10, 40):
        tracks = tracker.update(seen(walker(100), label=7), frame / 10)
    assert tracks.classes.tolist() == [7], "a lasting change of mind is followed"
    assert tracks.ids.tolist() == [1]


def test_objects_of_two_classes_in_one_place_stay_apart() -> None:
    """A rider and a bicycle: nearly the same box."""
    tracker = Tracker()
    for frame in range(30):
        both = Detections(
            np.array([walker(100 + 3 * frame), walker(102 + 3 * frame, 105)], np.float32)[:: (-1) ** frame],
            np.array([0.9, 0.9], np.float32),
            np.array([0, 1])[:: (-1) ** frame],
        )
        tracks = tracker.update(both, frame / 10)
    assert dict(zip(tracks.ids.tolist(), tracks.classes.tolist(), strict=True)) == {1: 0, 2: 1}


def test_a_threshold_admits_a_weaker_detector() -> None:
    weak, usual = Tracker(TrackerParameters.for_threshold(0.1)), Tracker()
    for frame in range(10):
        tracks = weak.update(seen(walker(100), score=0.5), frame / 10)
        assert len(usual.update(seen(walker(100), score=0.5), frame / 10)) == 0
    assert len(tracks) == 1
    assert TrackerParameters.for_threshold(0.4) == TrackerParameters()
    assert TrackerParameters.for_threshold(0.01).life.birth_score > 0.01


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.75, 0.9, 0.99])
def test_what_counts_under_a_strict_threshold_is_tracked(threshold: float) -> None:
    tracker = Tracker(TrackerParameters.for_threshold(threshold))
    score = max(threshold, 0.75) + 0.005
    for frame in range(3):
        tracks = tracker.update(seen(walker(100), score=score), frame / 10)
    assert tracks.ids.tolist() == [1]
    assert len(tracker.update(seen(walker(100), score=threshold - 0.01), 0.3)) == 1


def test_prediction_follows_time_and_changes_nothing() -> None:
    one, other = Tracker(), Tracker()
    run(one, 100, 50, 0, 3)
    run(other, 100, 50, 0, 3)
    for ahead_s in (-0.2, 0.0, 0.1, 0.3):
        predicted = one.predict(2.9 + ahead_s)
        np.testing.assert_allclose(predicted.boxes[0], walker(245 + 50 * ahead_s), atol=3.0)
    assert len(one.predict(2.9 + 10)) == 0
    after, untouched = run(one, 100, 50, 3, 3.1), run(other, 100, 50, 3, 3.1)
    np.testing.assert_array_equal(after.boxes, untouched.boxes)


def test_sparse_detections_stay_visible_in_between() -> None:
    tracker = Tracker()
    for second in range(6):
        tracker.update(seen(walker(100 + 30 * second)), float(second))
    for ahead_s in (0.3, 0.6, 0.9):
        assert len(tracker.predict(5 + ahead_s)) == 1


def test_prediction_from_another_thread_is_always_whole() -> None:
    tracker = Tracker()
    stop, faults = threading.Event(), []

    def watch() -> None:
        while not stop.is_set():
            tracks = tracker.predict(4.0)
            if len({len(tracks.boxes), len(tracks.ids), len(tracks.scores), len(tracks.coasting)}) != 1:
                faults.append("torn")
            if len(tracks) and not np.isfinite(tracks.boxes).all():
                faults.append("not finite")

    watcher = threading.Thread(target=watch)
    watcher.start()
    for frame in range(400):
        count = frame % 7
        tracker.update(seen(*(walker(100.0 + 150 * index) for index in range(count))), frame / 50)
    stop.set()
    watcher.join()
    assert not faults


def test_published_tracks_do_not_change_later() -> None:
    tracker = Tracker()
    tracks = run(tracker, 100, 50, 0, 2)
    before = tracks.boxes.copy()
    run(tracker, 100, 50, 2, 3)
    np.testing.assert_array_equal(tracks.boxes, before)


BLACK = np.zeros((90, 160), np.uint8)
NOISE = [np.roll(np.random.default_rng(0).integers(0, 255, (90, 160), np.uint8), 4 * n, 1) for n in range(2)]
numbers = st.floats(width=32, allow_nan=True, allow_infinity=True)
times = st.floats(allow_nan=True, allow_infinity=True) | st.floats(-10, 10) | st.just(1.0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nonsense_never_raises(data: st.DataObject) -> None:
    tracker = Tracker()
    for _ in range(data.draw(st.integers(1, 8))):
        count = data.draw(st.integers(0, 6))
        boxes = data.draw(arrays(np.float32, (count, 4), elements=numbers | st.floats(0, 500, width=32)))
        scores = data.draw(arrays(np.float32, count, elements=numbers | st.floats(0, 1, width=32)))
        classes = data.draw(arrays(np.int64, count))
        time_s = data.draw(times)
        luma = data.draw(st.none() | st.sampled_from([BLACK, *NOISE]))
        for tracks in (
            tracker.update(Detections(boxes, scores, classes), time_s, View(160, 90, luma)),
            tracker.predict(data.draw(times)),
        ):
            assert np.isfinite(tracks.boxes).all()
            assert (tracks.boxes[:, 2:] >= tracks.boxes[:, :2]).all()
            assert len(set(tracks.ids.tolist())) == len(tracks)


def test_thousands_of_boxes_and_a_frozen_clock_stay_bounded() -> None:
    rng = np.random.default_rng(0)
    parameters = TrackerParameters(max_detections=150, life=LifeParameters(most=200))
    tracker = Tracker(parameters)
    for _ in range(20):
        corners = rng.uniform(0, 4000, (5000, 2))
        boxes = np.concatenate((corners, corners + rng.uniform(5, 100, (5000, 2))), axis=1)
        crowd = Detections(
            boxes.astype(np.float32), rng.uniform(0, 1, 5000).astype(np.float32), np.zeros(5000, np.int64)
        )
        assert len(tracker.update(crowd, 1.0)) <= 200
    assert len(tracker._snapshot.tracks) <= 200
    for _ in range(3000):
        tracks = tracker.update(Detections.empty(), 1.0)
    assert len(tracks) == 0
    assert len(tracker._snapshot.tracks) == 0, "a frozen clock still lets go of what is gone"


def test_a_clock_that_jumps_back_loses_nothing() -> None:
    tracker = Tracker()
    run(tracker, 100, 0, 50, 52)
    tracks = run(tracker, 100, 0, 0, 2)
    assert tracks.ids.tolist() == [1]
    assert tracks.ages_s[0] == pytest.approx(3.8, abs=0.05)
