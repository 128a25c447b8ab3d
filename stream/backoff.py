"""How long to wait before a source that failed is opened again: ever longer, up to a cap, never in step.

It knows nothing of time passing or of sources; it is told what went wrong.
"""

from __future__ import annotations

import random

from stream.errors import SourceUnauthorised

FIRST_S = 0.5
SETTLED_S = 10.0  # pictures for this long: the next failure starts from the first pause again
# Cameras lock an account after some five failed logins within minutes.
LOGIN_FIRST_S = 10.0
LOGIN_CAP = 10  # times the cap of other faults


class Backoff:
    """Pauses that double, up to ``most_s`` seconds."""

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._pause_s = FIRST_S

    def reset(self) -> None:
        """It works again, or is expected to."""
        self._pause_s = FIRST_S

    def pause_s(self, fault: Exception, played_s: float) -> float:
        """Seconds to wait after ``fault``, which came when it had played for ``played_s``."""
        if played_s > SETTLED_S:
            self.reset()
        most_s = self._most_s
        if isinstance(fault, SourceUnauthorised):
            most_s *= LOGIN_CAP
            self._pause_s = max(self._pause_s, LOGIN_FIRST_S)
        pause_s = min(self._pause_s, most_s)
        self._pause_s = 2 * pause_s
        return pause_s * random.uniform(0.8, 1.2)
