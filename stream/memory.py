"""How much memory glibc may keep for itself.

Its malloc gives threads heaps of their own, up to eight a core, each of which keeps what was once freed in it. An
app whose decoders and encoders come and go in ever new threads spreads over all of them: 120 viewers one after
another took it from 295 to 380 MB with the 16 of two cores, from 266 to 307 MB with two. Knows nothing of the app.
"""

from __future__ import annotations

import ctypes
import os
import sys

MOST_HEAPS = 2
_M_ARENA_MAX = -8  # malloc.h


def limit_heaps() -> bool:
    """Let malloc have two heaps, unless the environment says something of its own. False: this is no glibc.

    To be called before there are threads, whose heaps would stay.
    """
    if "MALLOC_ARENA_MAX" in os.environ or "GLIBC_TUNABLES" in os.environ:
        return True
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and mallopt(_M_ARENA_MAX, MOST_HEAPS) == 1
