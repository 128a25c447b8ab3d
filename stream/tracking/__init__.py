"""Tracking: detections get an identity over time.

``motion`` moves, ``association`` pairs, ``lifecycle`` decides, ``tracker`` has them work together; ``view`` is
what the picture adds.
"""

from stream.tracking.lifecycle import LifeParameters
from stream.tracking.motion import MotionParameters
from stream.tracking.tracker import Tracker, TrackerParameters, TrackEvent
from stream.tracking.view import View

__all__ = ["LifeParameters", "MotionParameters", "TrackEvent", "Tracker", "TrackerParameters", "View"]
