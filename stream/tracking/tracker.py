"""The life of a track: tentative, confirmed, coasting, gone. One ``Tracker`` a camera.

Two-stage association as in ByteTrack (arXiv 2110.06864): sure detections are matched to all tracks
first, unsure ones then to the tracks still without a match. All times are seconds of the stream;
what matters is how long a track has been seen or unseen, never how many frames that was.

Knows nothing of pictures, threads or frame rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.frames import Detections, Tracks
from stream.tracking.association import log_likelihood, match
from stream.tracking.motion import ROWS, Array, MotionModel, MotionParameters, to_centre_size

Records = npt.NDArray[np.void]
Indices = npt.NDArray[np.intp]
Classes = npt.NDArray[np.int64]

_TRACK = np.dtype(
    [
        ("motion", np.float64, (ROWS, 4)),
        ("id", np.int64),
        ("class", np.int64),
        ("class_votes", np.float64),  # how far ahead the class is (majority vote of Boyer and Moore)
        ("score", np.float64),
        ("evidence", np.float64),  # what speaks for the track: scores less doubt, summed, never below 0
        ("age_s", np.float64),
        ("unseen_s", np.float64),
        ("confirmed", np.bool_),
    ]
)
_LARGEST_PX = 1e6
_MOST_VOTES = 10.0
_LEAST_GAP_S = 1e-3


@dataclass(frozen=True, slots=True)
class TrackerParameters:
    """Scores are 0-1, times seconds, likelihoods in nats."""

    low_score: float = 0.10
    """Detections below are ignored."""
    high_score: float = 0.40
    """Detections from here on are matched first; those below may only continue a track."""
    birth_score: float = 0.70
    """A track starts with a detection at least this sure."""
    doubt: float = 0.55
    """A detection speaks for its track by what its score is above this, and against it by what below."""
    confirm_evidence: float = 0.30
    """A track is shown once what spoke for it adds up to this: two detections of 0.7, or one of 0.85."""
    chance: float = 1.0
    """Log density, in box heights, of a detection that is not the track's object."""
    unsure: float = 4.0
    """How many nats likelier than chance an unsure detection must be to continue a track."""
    other_class: float = 2.0
    """How many nats likelier than chance a detection of another class must be."""
    tail: float = 4.0
    """Degrees of freedom of where detections fall: fewer forgive more."""
    tentative_s: float = 0.5
    """A track not yet confirmed and unseen for longer is dropped."""
    unsure_s: float = 0.6
    """A track unseen for longer, beyond the gap between frames, is not continued by an unsure detection."""
    show_s: float = 0.5
    """A track unseen for longer, beyond the gap between frames, is no longer shown as coasting."""
    lost_s: float = 2.0
    """A track unseen for longer is gone; its object, should it return, gets a new id."""
    max_tracks: int = 1000
    max_detections: int = 1000
    motion: MotionParameters = field(default_factory=MotionParameters)

    @classmethod
    def for_threshold(cls, score_threshold: float) -> TrackerParameters:
        """For a model whose detections count from ``score_threshold`` on; the defaults are for 0.4.

        What is asked of a new track moves along.
        """
        fresh = cls()
        shift = score_threshold - fresh.high_score
        return replace(
            fresh,
            low_score=min(fresh.low_score, score_threshold),
            high_score=score_threshold,
            birth_score=min(max(fresh.birth_score + shift, score_threshold), 0.95),
            doubt=min(max(fresh.doubt + shift, 0.0), 0.8),
        )


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What ``predict`` may read while ``update`` runs: never changed once published."""

    records: Records
    time_s: float
    gap_s: float
    """How long the update before was ago: absences are judged beyond this."""


class Tracker:
    """Gives detections of one camera an identity over time. Ids start at 1 and are never reused.

    ``update`` belongs to one thread; ``predict`` may be called from any.
    """

    def __init__(self, parameters: TrackerParameters | None = None) -> None:
        self._parameters = parameters or TrackerParameters()
        self._model = MotionModel(self._parameters.motion)
        self._next_id = 1
        self._snapshot = _Snapshot(np.zeros(0, _TRACK), np.nan, _LEAST_GAP_S)

    def update(self, detections: Detections, time_s: float) -> Tracks:
        """The confirmed tracks at ``time_s``, those not seen in this frame flagged as coasting.

        Time that stands still or runs back counts as a millisecond; boxes that are not finite,
        reversed or empty are ignored, as are the least sure ones past ``max_detections``.
        """
        last_s = self._snapshot.time_s
        gap_s = time_s - last_s
        if not _LEAST_GAP_S < gap_s < np.inf:
            gap_s = _LEAST_GAP_S
        tracks = self._aged(self._snapshot.records, gap_s)
        boxes, scores, classes = _usable(detections, self._parameters)
        track_rows, detection_rows = self._associate(tracks, gap_s, boxes, scores, classes)
        self._seen(tracks, track_rows, boxes[detection_rows], scores[detection_rows], classes[detection_rows])
        unmatched = scores >= self._parameters.birth_score
        unmatched[detection_rows] = False
        tracks = tracks[self._alive(tracks)]
        if unmatched.any():
            tracks = self._with_births(tracks, boxes[unmatched], scores[unmatched], classes[unmatched])
        snapshot = _Snapshot(
            tracks, float(time_s) if np.isfinite(time_s) else last_s, min(gap_s, self._parameters.lost_s)
        )
        self._snapshot = snapshot
        return self._shown(snapshot, 0.0)

    def clear(self) -> None:
        """Forget every track, as when the picture is another one; ids go on where they were."""
        self._snapshot = _Snapshot(np.zeros(0, _TRACK), self._snapshot.time_s, self._snapshot.gap_s)

    def state(self) -> dict[str, Any]:
        """All that the next update depends on, as plain numbers and lists, to the last bit."""
        snapshot = self._snapshot
        return {
            "next_id": self._next_id,
            "time_s": snapshot.time_s,
            "gap_s": snapshot.gap_s,
            "records": {name: snapshot.records[name].tolist() for name in _TRACK.fields or ()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as the tracker was, of the same parameters, that said this as its ``state``.

        Raises:
            KeyError, TypeError, ValueError: it is no such state.
        """
        columns = {
            name: np.asarray(state["records"][name], _TRACK[name].base) for name in _TRACK.fields or ()
        }
        records = np.zeros(len(columns["id"]), _TRACK)
        for name, values in columns.items():
            records[name] = values.reshape(records[name].shape)
        self._next_id = int(state["next_id"])
        self._snapshot = _Snapshot(records, float(state["time_s"]), float(state["gap_s"]))

    def predict(self, time_s: float) -> Tracks:
        """The tracks of the last update with their boxes as expected at ``time_s``."""
        snapshot = self._snapshot
        ahead_s = time_s - snapshot.time_s
        return self._shown(snapshot, ahead_s if np.isfinite(ahead_s) else 0.0)

    def _aged(self, records: Records, gap_s: float) -> Records:
        tracks = records.copy()
        if len(tracks):
            tracks["motion"] = self._model.predict(records["motion"], gap_s)
            tracks["age_s"] += gap_s
            tracks["unseen_s"] += gap_s
        return tracks

    def _associate(
        self, tracks: Records, gap_s: float, boxes: Array, scores: Array, classes: Classes
    ) -> tuple[Indices, Indices]:
        """Rows of tracks and of the detections that continue them: the sure ones choose first."""
        p = self._parameters
        gains = self._gains(tracks, boxes, classes)
        sure = scores >= p.high_score
        sure_rows, unsure_rows = sure.nonzero()[0], (~sure).nonzero()[0]
        first_tracks, columns = match(gains[:, sure_rows])
        first_detections = sure_rows[columns]
        if not len(unsure_rows):
            return first_tracks, first_detections
        free = tracks["unseen_s"] <= p.unsure_s + gap_s
        free[first_tracks] = False
        free_rows = free.nonzero()[0]
        rows, columns = match(gains[free_rows[:, None], unsure_rows] - p.unsure)
        return (
            np.concatenate((first_tracks, free_rows[rows])),
            np.concatenate((first_detections, unsure_rows[columns])),
        )

    def _gains(self, tracks: Records, boxes: Array, classes: Classes) -> Array:
        """How much likelier each pair is the same object than not, (N tracks, M detections), in nats."""
        if not len(tracks) or not len(boxes):
            return np.zeros((len(tracks), len(boxes)))
        p = self._parameters
        expected, variances = self._model.expected(tracks["motion"])
        gains = log_likelihood(expected, variances, to_centre_size(boxes), p.tail)
        gains -= p.chance
        gains[tracks["class"][:, None] != classes] -= p.other_class
        return gains

    def _seen(self, tracks: Records, rows: Indices, boxes: Array, scores: Array, classes: Classes) -> None:
        """Continue ``rows`` of ``tracks`` (changed in place) with their detections."""
        if not len(rows):
            return
        seen = tracks[rows]
        seen["motion"] = self._model.correct(seen["motion"], boxes, scores)
        seen["score"] = scores
        seen["evidence"] = np.maximum(seen["evidence"] + scores - self._parameters.doubt, 0.0)
        seen["unseen_s"] = 0.0
        seen["confirmed"] |= seen["evidence"] >= self._parameters.confirm_evidence
        votes = seen["class_votes"] + np.where(seen["class"] == classes, scores, -scores)
        seen["class"] = np.where(votes < 0.0, classes, seen["class"])
        seen["class_votes"] = np.minimum(np.abs(votes), _MOST_VOTES)
        tracks[rows] = seen

    def _alive(self, tracks: Records) -> npt.NDArray[np.bool_]:
        p = self._parameters
        patience_s = np.where(tracks["confirmed"], p.lost_s, p.tentative_s)
        alive: npt.NDArray[np.bool_] = tracks["unseen_s"] <= patience_s
        return alive

    def _with_births(self, tracks: Records, boxes: Array, scores: Array, classes: Classes) -> Records:
        count = min(len(boxes), self._parameters.max_tracks - len(tracks))
        born = np.zeros(count, _TRACK)
        born["motion"] = self._model.start(boxes[:count])
        born["id"] = np.arange(self._next_id, self._next_id + count)
        born["class"], born["score"] = classes[:count], scores[:count]
        born["class_votes"] = scores[:count]
        born["evidence"] = scores[:count] - self._parameters.doubt
        born["confirmed"] = born["evidence"] >= self._parameters.confirm_evidence
        self._next_id += count
        return np.concatenate((tracks, born))

    def _shown(self, snapshot: _Snapshot, ahead_s: float) -> Tracks:
        tracks = snapshot.records
        patience_s = self._parameters.show_s + snapshot.gap_s - max(ahead_s, 0.0)
        shown = tracks[tracks["confirmed"] & (tracks["unseen_s"] <= patience_s)]
        return Tracks(
            boxes=self._model.boxes_at(shown["motion"], ahead_s).astype(np.float32),
            scores=shown["score"].astype(np.float32),
            classes=shown["class"].copy(),
            ids=shown["id"].copy(),
            ages_s=np.maximum(shown["age_s"] + ahead_s, 0.0).astype(np.float32),
            coasting=shown["unseen_s"] > 0.0,
        )


def _usable(detections: Detections, p: TrackerParameters) -> tuple[Array, Array, Classes]:
    """Boxes float64 (M, 4), scores (M,) and classes (M,) without nonsense."""
    boxes, scores = detections.boxes, detections.scores
    good = (scores >= p.low_score) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    good &= (np.abs(boxes) < _LARGEST_PX).all(axis=1)
    rows = good.nonzero()[0]
    if len(rows) > p.max_detections:
        rows = rows[np.argsort(-scores[rows], kind="stable")[: p.max_detections]]
    return (
        boxes[rows].astype(np.float64),
        np.minimum(scores[rows], 1.0).astype(np.float64),
        detections.classes[rows],
    )
