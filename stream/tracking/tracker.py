"""``Tracker``: detections of one camera get an identity over time.

Two-stage association as in ByteTrack (arXiv 2110.06864): sure detections are matched to all tracks
first, unsure ones then to the tracks still without a match. Where the picture is given, the camera's
own movement is made up for, and who has walked out of it is gone. All times are seconds of the stream.

Knows nothing of threads or frame rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stream.frames import Detections, Tracks, TrackState
from stream.tracking.association import Pairs, covered, match, overlaps, plausible
from stream.tracking.camera_motion import CameraMotion
from stream.tracking.lifecycle import Bools, Classes, Indices, Lifecycle, LifeParameters, TrackTable
from stream.tracking.motion import Array, MotionModel, MotionParameters, to_centre_size, to_corners
from stream.tracking.view import View

_LARGEST_PX = 1e6
_LEAST_GAP_S = 1e-3


@dataclass(frozen=True, slots=True)
class TrackerParameters:
    """Scores are 0-1, times seconds, likelihoods in nats."""

    low_score: float = 0.10
    """Detections below are ignored."""
    high_score: float = 0.40
    """Detections from here on are matched first; those below may only continue a track."""
    chance: float = 1.0
    """Log density, in box heights, of a detection that is not the track's object."""
    unsure: float = 4.0
    """How many nats likelier than chance an unsure detection must be to continue a track."""
    other_class: float = 2.0
    """How many nats likelier than chance a detection of another class must be."""
    tail: float = 4.0
    """Degrees of freedom of where detections fall: fewer forgive more."""
    unsure_s: float = 0.6
    """A track unseen for longer, beyond the gap between frames, is not continued by an unsure detection."""
    double_iou: float = 0.4
    """A detection that overlaps a track of its class seen in this frame, or a surer detection that starts one,
    by more than this is that object once more, and starts none."""
    inside: float = 0.5
    """A track unseen, of which less is in the picture, has left."""
    max_detections: int = 1000
    life: LifeParameters = field(default_factory=LifeParameters)
    motion: MotionParameters = field(default_factory=MotionParameters)

    @classmethod
    def for_threshold(cls, score_threshold: float) -> TrackerParameters:
        """For a model whose detections count from ``score_threshold`` on; the defaults are for 0.4.

        Where less counts, less is asked of a new track; where more does, what counts is good enough.
        """
        fresh = cls()
        shift = min(score_threshold - fresh.high_score, 0.0)
        return replace(
            fresh,
            low_score=min(fresh.low_score, score_threshold),
            high_score=score_threshold,
            life=replace(
                fresh.life,
                birth_score=max(fresh.life.birth_score + shift, score_threshold),
                doubt=max(fresh.life.doubt + shift, 0.0),
            ),
        )


@dataclass(frozen=True, slots=True)
class TrackEvent:
    """An object came, or is gone."""

    kind: Literal["entered", "left"]
    id: int
    class_: int
    time_s: float
    """When it was confirmed, or last seen."""
    age_s: float
    """How long it was followed until then."""
    box: tuple[float, float, float, float]
    """xyxy in source pixels, then or where it was expected last."""
    names: tuple[str, ...] = ()
    """In which ``class_`` counts."""


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What ``predict`` may read while ``update`` runs: never changed once published."""

    tracks: TrackTable
    time_s: float
    gap_s: float
    """How long the update before was ago: absences are judged beyond this."""
    names: tuple[str, ...]
    """In which their classes count; none: the next detections may say."""


class Tracker:
    """Ids start at 1 and are never reused. Detections of other classes, by their names, begin anew.

    ``update`` and ``adopt`` belong to one thread; ``predict`` may be called from any.

    Attributes:
        events: what the last update brought about.
    """

    def __init__(self, parameters: TrackerParameters | None = None) -> None:
        self.events: tuple[TrackEvent, ...] = ()
        self._parameters = parameters or TrackerParameters()
        self._model = MotionModel(self._parameters.motion)
        self._life = Lifecycle(self._parameters.life)
        self._camera = CameraMotion()
        self._next_id = 1
        self._snapshot = _Snapshot(TrackTable.empty(), np.nan, _LEAST_GAP_S, ())

    def update(self, detections: Detections, time_s: float, view: View | None = None) -> Tracks:
        """The confirmed tracks at ``time_s``, those not seen in this frame flagged as coasting.

        Time that stands still or runs back counts as a millisecond; boxes that are not finite,
        reversed or empty are ignored, as are the least sure ones past ``max_detections``.
        """
        before, forgotten = self._of_classes(detections.names)
        names = detections.names or before.names
        gap_s = time_s - before.time_s
        if not _LEAST_GAP_S < gap_s < np.inf:
            gap_s = _LEAST_GAP_S
        now_s = float(time_s) if np.isfinite(time_s) else before.time_s
        seen, scores, classes = _usable(detections, self._parameters)
        motion = before.tracks.motion
        if view is not None and view.luma is not None:
            warp = self._camera.look(view.luma, to_corners(seen[:, scores >= self._parameters.high_score]))
            motion = motion if warp is None else self._model.moved(motion, warp)
        tracks = self._life.aged(before.tracks, self._model.predict(motion, gap_s), gap_s)
        rows, columns = self._associate(tracks, gap_s, seen, scores, classes)
        if len(rows):
            motion = self._model.correct(tracks.motion[..., rows], seen[:, columns], scores[columns])
            tracks.motion[..., rows] = motion
            self._life.see(tracks, rows, scores[columns], classes[columns])
        tracks, known, left = self._without_gone(tracks, before.tracks.confirmed, view, now_s, names)
        unmatched = scores >= self._parameters.life.birth_score
        unmatched[columns] = False
        if unmatched.any():
            tracks = self._with_births(tracks, seen[:, unmatched], scores[unmatched], classes[unmatched])
        entered = tracks.confirmed.copy()
        entered[: len(known)] &= ~known
        self.events = (*forgotten, *left, *self._events("entered", tracks, entered, now_s, names))
        self._snapshot = _Snapshot(tracks, now_s, min(gap_s, self._parameters.life.lost_s), names)
        return self._shown(self._snapshot, 0.0)

    def clear(self) -> None:
        """Forget every track, as when the picture is another one; ids go on where they were."""
        before = self._snapshot
        these, names = before.tracks.confirmed, before.names
        self.events = self._events("left", before.tracks, these, before.time_s, names)
        self._snapshot = _Snapshot(TrackTable.empty(), before.time_s, before.gap_s, names)

    def adopt(self, parameters: TrackerParameters) -> None:
        """Go on with other parameters, and with the tracks there are."""
        if parameters != self._parameters:
            self._parameters = parameters
            self._model = MotionModel(parameters.motion)
            self._life = Lifecycle(parameters.life)

    def state(self) -> dict[str, Any]:
        """All that the next update depends on, as plain numbers and lists, to the last bit."""
        snapshot = self._snapshot
        return {
            "next_id": self._next_id,
            "time_s": snapshot.time_s,
            "gap_s": snapshot.gap_s,
            "tracks": snapshot.tracks.state(),
            "camera": self._camera.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as the tracker was, of the same parameters, that said this as its ``state``.

        Raises:
            KeyError, TypeError, ValueError: it is no such state.
        """
        tracks = TrackTable.of(state["tracks"])
        self._camera.restore(state["camera"])
        self._next_id = int(state["next_id"])
        self._snapshot = _Snapshot(tracks, float(state["time_s"]), float(state["gap_s"]), ())

    def predict(self, time_s: float) -> Tracks:
        """The tracks of the last update with their boxes as expected at ``time_s``."""
        snapshot = self._snapshot
        ahead_s = time_s - snapshot.time_s
        return self._shown(snapshot, ahead_s if np.isfinite(ahead_s) else 0.0)

    def everything(self) -> tuple[Tracks, npt.NDArray[np.uint8]]:
        """All tracks of the last update, those too that are not shown, and the state of each (N,)."""
        snapshot = self._snapshot
        states = self._life.states(snapshot.tracks, self._patience_s(snapshot))
        return self._as_tracks(snapshot, np.ones(len(states), np.bool_), 0.0), states

    def counts(self) -> dict[str, int]:
        """How many tracks are in each state, by its name."""
        snapshot = self._snapshot
        states = self._life.states(snapshot.tracks, self._patience_s(snapshot)).tolist()
        return {state.name.lower(): states.count(state) for state in TrackState}

    def _of_classes(self, names: tuple[str, ...]) -> tuple[_Snapshot, tuple[TrackEvent, ...]]:
        """The tracks that detections with these names may continue, and what there is to tell of others."""
        known = self._snapshot.names
        if not names or not known or names == known:
            return self._snapshot, ()
        self.clear()
        return self._snapshot, self.events

    def _associate(
        self, tracks: TrackTable, gap_s: float, seen: Array, scores: Array, classes: Classes
    ) -> tuple[Indices, Indices]:
        """Rows of tracks and of the detections that continue them: the sure ones choose first."""
        p = self._parameters
        expected, variances = self._model.expected(tracks.motion)
        pairs = plausible(expected, variances, seen, p.tail, p.chance)
        gains = pairs.gains - p.other_class * (tracks.classes[pairs.tracks] != classes[pairs.detections])
        pairs = Pairs(pairs.tracks, pairs.detections, gains)
        sure = scores[pairs.detections] >= p.high_score
        rows, columns = match(pairs.where(sure & (gains > 0.0)))
        unsure = ~sure & (gains > p.unsure)
        if not unsure.any():
            return rows, columns
        free = tracks.unseen_s <= p.unsure_s + gap_s
        free[rows] = False
        pairs = pairs.where(unsure & free[pairs.tracks])
        more_rows, more_columns = match(Pairs(pairs.tracks, pairs.detections, pairs.gains - p.unsure))
        return np.concatenate((rows, more_rows)), np.concatenate((columns, more_columns))

    def _without_gone(
        self, tracks: TrackTable, known: Bools, view: View | None, time_s: float, names: tuple[str, ...]
    ) -> tuple[TrackTable, Bools, tuple[TrackEvent, ...]]:
        """The tracks that go on, which of them were ``known`` before, and what there is to tell of the others."""
        unseen = tracks.unseen_s > 0.0
        if not unseen.any():
            return tracks, known, ()
        gone = ~self._life.alive(tracks)
        if view is not None:
            picture = np.array([[0.0, 0.0, view.width, view.height]])
            inside = covered(self._model.boxes_at(tracks.motion), picture)[:, 0]
            gone |= unseen & (inside < self._parameters.inside)
        if not gone.any():
            return tracks, known, ()
        left = self._events("left", tracks, gone & known, time_s, names)
        return tracks.rows(~gone), known[~gone], left

    def _with_births(self, tracks: TrackTable, seen: Array, scores: Array, classes: Classes) -> TrackTable:
        """The tracks, and new ones of detections that are no double of a track or of a surer detection."""
        others = tracks.rows(tracks.unseen_s == 0.0)
        boxes = to_corners(seen)
        rivals = np.concatenate((self._model.boxes_at(others.motion), boxes))
        double = overlaps(boxes, rivals) > self._parameters.double_iou
        double &= classes[:, None] == np.concatenate((others.classes, classes))
        order = np.argsort(np.argsort(-scores, kind="stable"))
        double[:, len(others) :] &= order[:, None] > order
        rows = np.flatnonzero(~double.any(axis=1))[: max(0, self._parameters.life.most - len(tracks))]
        motion = self._model.start(seen[:, rows])
        born = self._life.born(motion, self._next_id, scores[rows], classes[rows])
        self._next_id += len(rows)
        return tracks.joined(born)

    def _events(
        self,
        kind: Literal["entered", "left"],
        tracks: TrackTable,
        these: Bools,
        time_s: float,
        names: tuple[str, ...],
    ) -> tuple[TrackEvent, ...]:
        if not these.any():
            return ()
        tracks = tracks.rows(these)
        boxes = self._model.boxes_at(tracks.motion).tolist()
        columns = (tracks.ids, tracks.classes, tracks.age_s, tracks.unseen_s)
        rows = zip(boxes, *(column.tolist() for column in columns), strict=True)
        return tuple(
            TrackEvent(kind, id_, class_, time_s - unseen_s, age_s - unseen_s, (x1, y1, x2, y2), names)
            for (x1, y1, x2, y2), id_, class_, age_s, unseen_s in rows
        )

    def _patience_s(self, snapshot: _Snapshot) -> float:
        return self._parameters.life.show_s + snapshot.gap_s

    def _shown(self, snapshot: _Snapshot, ahead_s: float) -> Tracks:
        patience_s = self._patience_s(snapshot) - max(ahead_s, 0.0)
        return self._as_tracks(snapshot, self._life.shown(snapshot.tracks, patience_s), ahead_s)

    def _as_tracks(self, snapshot: _Snapshot, these: Bools, ahead_s: float) -> Tracks:
        """Some of the tracks for the world outside, which may keep them."""
        tracks = snapshot.tracks
        if not these.all():
            tracks = tracks.rows(these)
        return Tracks(
            boxes=self._model.boxes_at(tracks.motion, ahead_s).astype(np.float32),
            scores=tracks.scores.astype(np.float32),
            classes=tracks.classes.copy(),
            ids=tracks.ids.copy(),
            ages_s=np.maximum(tracks.age_s + ahead_s, 0.0).astype(np.float32),
            coasting=tracks.unseen_s > 0.0,
            names=snapshot.names,
        )


def _usable(detections: Detections, p: TrackerParameters) -> tuple[Array, Array, Classes]:
    """Centre and size float64 (4, M), scores (M,) and classes (M,) without nonsense."""
    x1, y1, x2, y2 = corners = detections.boxes.T.astype(np.float64)
    scores, classes = detections.scores.astype(np.float64), detections.classes
    good = (scores >= p.low_score) & (x2 > x1) & (y2 > y1)
    good &= (x1 > -_LARGEST_PX) & (y1 > -_LARGEST_PX) & (x2 < _LARGEST_PX) & (y2 < _LARGEST_PX)
    rows = good.nonzero()[0]
    if len(rows) > p.max_detections:
        rows = rows[np.argsort(-scores[rows], kind="stable")[: p.max_detections]]
    if len(rows) < len(scores):
        corners, scores, classes = corners[:, rows], scores[rows], classes[rows]
    return to_centre_size(corners), np.minimum(scores, 1.0), classes
