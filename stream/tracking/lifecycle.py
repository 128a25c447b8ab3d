"""The life of a track: tentative, confirmed, coasting, lost, gone. What is kept of each, and what changes it.

All times are seconds of the stream; what matters is how long a track has been seen or unseen, never how
many frames that was. Knows nothing of motion or of how detections find their tracks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.frames import TrackState
from stream.tracking.motion import ROWS, Array

Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]
Classes = npt.NDArray[np.int64]

_MOST_VOTES = 10.0


@dataclass(frozen=True, slots=True)
class LifeParameters:
    """Scores are 0-1, times seconds."""

    birth_score: float = 0.75
    """A track starts with a detection at least this sure."""
    doubt: float = 0.55
    """A detection speaks for its track by what its score is above this, and against it by what below."""
    confirm_evidence: float = 0.30
    """A track is shown once what spoke for it adds up to this: two detections of 0.7 or more, or one of 0.85."""
    tentative_s: float = 0.5
    """A track not yet confirmed and unseen for longer is dropped."""
    show_s: float = 0.5
    """A track unseen for longer, beyond the gap between frames, is lost: no longer shown as coasting."""
    lost_s: float = 3.0
    """A track unseen for longer is gone; its object, should it return, gets a new id."""
    most: int = 1000
    """So many tracks at once."""


@dataclass(slots=True)
class TrackTable:
    """All tracks of a camera, a column each; a table that was published is not changed any more."""

    motion: Array
    """float64 (4, 5, N), see :mod:`stream.tracking.motion`."""
    ids: Classes
    classes: Classes
    votes: Array
    """How far ahead the class is (majority vote of Boyer and Moore)."""
    scores: Array
    """Of the last detection."""
    evidence: Array
    """What speaks for the track: scores less doubt, summed, never below 0."""
    age_s: Array
    unseen_s: Array
    confirmed: Bools

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, these: Bools | Indices) -> TrackTable:
        return TrackTable(*(getattr(self, name)[..., these] for name in _COLUMNS))

    def joined(self, others: TrackTable) -> TrackTable:
        pairs = ((getattr(self, name), getattr(others, name)) for name in _COLUMNS)
        return TrackTable(*(np.concatenate(pair, axis=-1) for pair in pairs))

    def state(self) -> dict[str, Any]:
        """Plain numbers and lists, to the last bit."""
        return {name: getattr(self, name).tolist() for name in _COLUMNS}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> TrackTable:
        """The table of which this is the state.

        Raises:
            KeyError, TypeError, ValueError: it is no such state.
        """
        empty = cls.empty()
        count = len(state["ids"])
        return cls(
            *(
                np.asarray(state[name], column.dtype).reshape(*column.shape[:-1], count)
                for name, column in ((name, getattr(empty, name)) for name in _COLUMNS)
            )
        )

    @classmethod
    def empty(cls) -> TrackTable:
        ints, floats = np.zeros(0, np.int64), np.zeros(0)
        return cls(
            np.zeros((4, ROWS, 0)), ints, ints, floats, floats, floats, floats, floats, np.zeros(0, np.bool_)
        )


_COLUMNS = [column.name for column in fields(TrackTable)]


class Lifecycle:
    """The rules, for all tracks at once. Holds constants only."""

    def __init__(self, parameters: LifeParameters) -> None:
        self._parameters = parameters

    def aged(self, tracks: TrackTable, motion: Array, gap_s: float) -> TrackTable:
        """The tracks, none of them seen yet, ``gap_s`` later and with the motion of then."""
        return TrackTable(
            motion,
            tracks.ids,
            tracks.classes.copy(),
            tracks.votes.copy(),
            tracks.scores.copy(),
            tracks.evidence.copy(),
            tracks.age_s + gap_s,
            tracks.unseen_s + gap_s,
            tracks.confirmed.copy(),
        )

    def see(self, tracks: TrackTable, rows: Indices, scores: Array, classes: Classes) -> None:
        """Take note of detections of some of the tracks, which are changed in place."""
        p = self._parameters
        evidence = np.maximum(tracks.evidence[rows] + (scores - p.doubt), 0.0)
        old = tracks.classes[rows]
        votes = tracks.votes[rows] + np.where(old == classes, scores, -scores)
        tracks.scores[rows] = scores
        tracks.evidence[rows] = evidence
        tracks.unseen_s[rows] = 0.0
        tracks.confirmed[rows] |= evidence >= p.confirm_evidence
        tracks.classes[rows] = np.where(votes < 0.0, classes, old)
        tracks.votes[rows] = np.minimum(np.abs(votes), _MOST_VOTES)

    def alive(self, tracks: TrackTable) -> Bools:
        """Which tracks have not been unseen for too long."""
        p = self._parameters
        alive: Bools = tracks.unseen_s <= np.where(tracks.confirmed, p.lost_s, p.tentative_s)
        return alive

    def born(self, motion: Array, first_id: int, scores: Array, classes: Classes) -> TrackTable:
        """Tracks that start now."""
        count, evidence = len(scores), scores - self._parameters.doubt
        return TrackTable(
            motion,
            np.arange(first_id, first_id + count),
            classes.copy(),
            scores.copy(),
            scores.copy(),
            evidence,
            np.zeros(count),
            np.zeros(count),
            evidence >= self._parameters.confirm_evidence,
        )

    def states(self, tracks: TrackTable, patience_s: float) -> npt.NDArray[np.uint8]:
        """What each track is, of :class:`stream.frames.TrackState`.

        Args:
            tracks: of one time.
            patience_s: ``show_s``, and what else a track may be unseen for before it is lost.
        """
        states = np.full(len(tracks), TrackState.CONFIRMED, np.uint8)
        states[tracks.unseen_s > 0.0] = TrackState.COASTING
        states[~self.shown(tracks, patience_s)] = TrackState.LOST
        states[~tracks.confirmed] = TrackState.TENTATIVE
        return states

    def shown(self, tracks: TrackTable, patience_s: float) -> Bools:
        """Which tracks are confirmed or coasting."""
        shown: Bools = tracks.confirmed & (tracks.unseen_s <= patience_s)
        return shown
