"""Tracking: detections get an identity over time. ``motion`` moves, ``association`` pairs, ``tracker`` decides."""

from stream.tracking.motion import MotionParameters
from stream.tracking.tracker import Tracker, TrackerParameters

__all__ = ["MotionParameters", "Tracker", "TrackerParameters"]
